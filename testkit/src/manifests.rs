//! The manifests of `deploy/`, as `kubectl kustomize` renders them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::run;

/// The repository's root.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The objects rendered from a directory of `deploy/`, in the order in which kubectl applies and
/// deletes them.
pub fn render(directory: &str) -> Result<Vec<Value>> {
    render_at(&workspace().join("deploy").join(directory))
}

/// The same for any directory.
pub fn render_at(directory: &Path) -> Result<Vec<Value>> {
    // `cargo xtask` provides a version that is recent enough.
    let kubectl = env::var_os("KUBECTL_BIN").unwrap_or_else(|| "kubectl".into());
    let mut kustomize = Command::new(kubectl);
    kustomize.arg("kustomize").arg(directory);
    let yaml = run(&mut kustomize, "").context("cannot run KUBECTL_BIN, or kubectl on the PATH")?;
    let objects = serde_saphyr::from_multiple(&yaml)?;
    ensure!(!objects.is_empty(), "{} is empty", directory.display());
    Ok(objects)
}

/// The base, rendered once.
pub fn base() -> Result<&'static [Value]> {
    static BASE: LazyLock<Result<Vec<Value>>> = LazyLock::new(|| render("base"));
    BASE.as_deref()
        .map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// The only object of this kind.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let only = found.next().with_context(|| format!("no {kind}"))?;
    ensure!(found.next().is_none(), "more than one {kind}");
    Ok(only)
}
