//! The crates that are linked into the binary and into the BPF object inside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    architecture::Architecture,
    build_ebpf,
    command::{cargo, read},
};

/// A crate of a registry.
pub(super) struct Linked {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: String,
    /// Its sources.
    pub(super) directory: PathBuf,
}

impl Linked {
    fn of_package(package: &Value) -> Result<Self> {
        let field = |name: &str| {
            let text = package[name].as_str().with_context(|| format!("no {name}"));
            text.map(str::to_owned)
        };
        let manifest = field("manifest_path")?;
        let directory = Path::new(&manifest).parent().context("no directory")?;
        Ok(Self {
            name: field("name")?,
            version: field("version")?,
            licence: field("license")?,
            directory: directory.to_owned(),
        })
    }
}

/// The crates, by name and version. Not those of macros, which only the compiler runs, and not our own.
pub(super) fn linked(architecture: Architecture) -> Result<Vec<Linked>> {
    let mut names = tree("interceptor", architecture.target())?;
    names.extend(tree(build_ebpf::PACKAGE, build_ebpf::TARGET)?);
    let mut packages = packages()?;
    names
        .into_iter()
        .map(|name| {
            let package = packages.remove(&name);
            let package = package.with_context(|| format!("cargo metadata has no {name}"))?;
            Linked::of_package(&package).with_context(|| format!("the metadata of {name}"))
        })
        .collect()
}

/// What a package links for a target, as `name version`: cargo resolves features as for a build.
fn tree(package: &str, target: &str) -> Result<BTreeSet<String>> {
    let tree = read(cargo("tree").args([
        "--locked",
        "--package",
        package,
        "--target",
        target,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    // A crate of the workspace is followed by its path, a repeated one by an asterisk.
    let first = tree.lines().filter(|line| !line.contains('('));
    Ok(first.map(|line| line.replacen(" v", " ", 1)).collect())
}

/// All packages of the lock file, by `name version`.
fn packages() -> Result<BTreeMap<String, Value>> {
    let metadata = read(cargo("metadata").args(["--locked", "--format-version", "1"]))?;
    let mut metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array_mut().context("no packages")?;
    Ok(packages
        .drain(..)
        .map(|package| {
            let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
            (format!("{} {}", text("name"), text("version")), package)
        })
        .collect())
}
