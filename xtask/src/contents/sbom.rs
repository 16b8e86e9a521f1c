//! The software bill of materials of the binary: `CycloneDX`, in JSON.
//!
//! cargo-cyclonedx describes each package of a workspace, with the features that all of them use together,
//! and with the crates of macros. This describes what is linked into the binary, glibc included.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::crates::{self, Linked};
use crate::{apt, architecture::Architecture, cross::CToolchain, paths, toolchain::Toolchain};

/// The bill of materials of the binary for one architecture. It contains nothing of the time.
pub(super) fn of_binary(architecture: Architecture) -> Result<Value> {
    let checksums = checksums()?;
    let mut components = crates::linked(architecture)?
        .iter()
        .map(|linked| component(linked, &checksums))
        .collect::<Result<Vec<_>>>()?;
    components.push(standard_library()?);
    components.push(c_library(architecture)?);
    let version = env!("CARGO_PKG_VERSION");
    let licence = env!("CARGO_PKG_LICENSE");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/interceptor@{version}"),
                "name": "interceptor",
                "version": version,
                "licenses": [{"expression": licence}],
                "properties": [{
                    "name": "cdx:rustc:sbom:target:triple",
                    "value": architecture.target(),
                }],
            },
        },
        "components": components,
    }))
}

fn component(linked: &Linked, checksums: &BTreeMap<String, String>) -> Result<Value> {
    let Linked {
        name,
        version,
        licence,
        ..
    } = linked;
    let url = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
    let checksum = checksums
        .get(&format!("{name} {version}"))
        .with_context(|| format!("Cargo.lock has no checksum of {name} {version}"))?;
    Ok(json!({
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "purl": url,
        // Before SPDX expressions, a slash was customary.
        "licenses": [{"expression": licence.replace('/', " OR ")}],
        "hashes": [{"alg": "SHA-256", "content": checksum}],
    }))
}

/// The standard library, which is built by the compiler of the same version.
fn standard_library() -> Result<Value> {
    let version = Toolchain::find()?.version()?;
    Ok(json!({
        "type": "library",
        "bom-ref": format!("rust-std@{version}"),
        "name": "rust-std",
        "version": version,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }))
}

fn c_library(architecture: Architecture) -> Result<Value> {
    let package = CToolchain::of(architecture)?.library_package;
    let installed = apt::installed(&[&package]);
    let version = installed
        .get(&package)
        .with_context(|| format!("the version of {package} is unknown"))?;
    let url = format!("pkg:deb/debian/{package}@{}", version.replace('+', "%2B"));
    Ok(json!({
        "type": "library",
        "bom-ref": url,
        "name": "glibc",
        "version": version,
        "purl": url,
        "licenses": [{"license": {"id": "LGPL-2.1-or-later"}}],
    }))
}

/// The checksums of Cargo.lock, by `name version`.
fn checksums() -> Result<BTreeMap<String, String>> {
    let lock = fs::read_to_string(paths::root().join("Cargo.lock"))?;
    let mut checksums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            value.map(|value| value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            checksums.insert(format!("{name} {version}"), checksum);
        }
    }
    ensure!(!checksums.is_empty(), "Cargo.lock has no checksums");
    Ok(checksums)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, path::PathBuf};

    use super::*;
    use crate::{
        build,
        command::{cargo, read},
    };

    fn of_this_machine() -> (Architecture, Value) {
        let architecture = Architecture::of_this_machine().expect("an architecture");
        let sbom = of_binary(architecture).expect("a bill of materials");
        (architecture, sbom)
    }

    /// The crates, as `name-version`.
    fn crates(sbom: &Value) -> BTreeSet<String> {
        let components = sbom["components"].as_array().expect("components");
        let of_cargo = components.iter().filter(|component| {
            let url = component["purl"].as_str().unwrap_or_default();
            url.starts_with("pkg:cargo/")
        });
        of_cargo
            .map(|component| {
                let text = |name: &str| component[name].as_str().expect("text");
                format!("{}-{}", text("name"), text("version"))
            })
            .collect()
    }

    /// The name at the start of the text. In debug information a byte 0 ends a path.
    fn directory_name(text: &str) -> &str {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.+".contains(c));
        &text[..end.unwrap_or(text.len())]
    }

    /// The compiler puts the paths of sources into the binary, for the messages of panics.
    #[test]
    fn each_crate_that_the_binary_names_is_listed() {
        let listed = crates(&of_this_machine().1);
        let binary = env::var_os("INTERCEPTOR_BIN")
            .map_or_else(|| build::built("interceptor"), PathBuf::from);
        let binary = fs::read(binary).expect("the binary of `cargo xtask test -- --no-run`");
        let text = String::from_utf8_lossy(&binary);
        let named: BTreeSet<_> = text
            .split("/registry/src/")
            .skip(1)
            .filter_map(|path| path.split('/').nth(1))
            .map(directory_name)
            .collect();
        assert!(named.len() > 50, "the binary names few crates: {named:?}");
        let missing: Vec<_> = named
            .iter()
            .filter(|name| !listed.contains(**name))
            .collect();
        assert!(missing.is_empty(), "not listed: {missing:?}");
    }

    /// cargo's metadata has the features of all packages of the workspace, so it has more than the binary.
    #[test]
    fn each_crate_that_is_listed_is_a_dependency() {
        let (architecture, sbom) = of_this_machine();
        let metadata = read(cargo("metadata").args([
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            architecture.target(),
        ]));
        let metadata: Value = serde_json::from_str(&metadata.expect("metadata")).expect("JSON");
        let reached = reached(&metadata, "interceptor");
        let bpf = ["aya-ebpf-0.2", "aya-ebpf-bindings-0.2", "aya-ebpf-cty-0.3"];
        let unknown: Vec<_> = crates(&sbom)
            .into_iter()
            .filter(|name| !reached.contains(name))
            .filter(|name| !bpf.iter().any(|program| name.starts_with(program)))
            .collect();
        assert!(unknown.is_empty(), "not dependencies: {unknown:?}");
    }

    /// The packages that `root` depends on, except for its build and its tests, as `name-version`.
    fn reached(metadata: &Value, root: &str) -> BTreeSet<String> {
        let packages = metadata["packages"].as_array().expect("packages");
        let package = |id: &Value| packages.iter().find(|package| package["id"] == *id);
        let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
        let name = |id: &Value| package(id).map(|package| package["name"].clone());
        let root = nodes
            .iter()
            .find(|node| name(&node["id"]).is_some_and(|name| name == root));
        let mut waiting = vec![root.expect("the root")];
        let mut reached = BTreeSet::new();
        while let Some(node) = waiting.pop() {
            for dependency in node["deps"].as_array().expect("dependencies") {
                let id = &dependency["pkg"];
                let kinds = dependency["dep_kinds"].as_array().expect("kinds");
                let package = package(id).expect("a package");
                let [name, version] = ["name", "version"].map(|field| package[field].as_str());
                let name = format!("{}-{}", name.expect("name"), version.expect("version"));
                if kinds.iter().any(|kind| kind["kind"].is_null()) && reached.insert(name) {
                    waiting.extend(nodes.iter().find(|node| node["id"] == *id));
                }
            }
        }
        reached
    }
}
