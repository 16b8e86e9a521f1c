//! The licences of everything in the binary, which require that their text is distributed with it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Architecture, root::Licence};
use crate::{
    command::{cargo, read},
    paths,
};

/// The licence of the C library, which is in the binary too.
const C_LIBRARY: &str = "/usr/share/doc/libc6-dev/copyright";

/// The project's own licences, and one file for all the crates that are linked.
pub(super) fn of_binary(architecture: Architecture) -> Result<Vec<Licence>> {
    let mut licences = ["LICENSE-APACHE", "LICENSE-MIT"]
        .map(|name| (name, paths::root().join(name)))
        .into_iter()
        .chain([("glibc", C_LIBRARY.into())])
        .map(|(name, path)| {
            Ok(Licence {
                name: name.to_owned(),
                text: text(&path)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let directories = directories_of_crates(architecture)?;
    let mut third_party = Vec::new();
    for name in linked_crates(architecture)? {
        let directory = directories
            .get(&name)
            .with_context(|| format!("no directory of {name}"))?;
        for file in licence_files(directory)? {
            third_party.extend(format!("\n==== {name}: {}\n\n", file_name(&file)).bytes());
            third_party.extend(text(&file)?);
        }
    }
    licences.push(Licence {
        name: "third-party".to_owned(),
        text: third_party,
    });
    Ok(licences)
}

/// The crates in the binary, as `name version`, sorted.
fn linked_crates(architecture: Architecture) -> Result<Vec<String>> {
    let mut tree = cargo("tree");
    tree.args(["--locked", "--package", "interceptor", "--edges", "normal"])
        .args(["--target", architecture.target(), "--prefix", "none"]);
    let mut crates: Vec<_> = read(&mut tree)?
        .lines()
        // A crate of the workspace is followed by its path, a proc macro by a note.
        .filter(|line| !line.contains('('))
        .filter_map(|line| line.replacen(" v", " ", 1).into())
        .collect();
    crates.sort();
    crates.dedup();
    Ok(crates)
}

/// The source directories of the crates, by `name version`.
fn directories_of_crates(architecture: Architecture) -> Result<BTreeMap<String, PathBuf>> {
    let mut metadata = cargo("metadata");
    metadata
        .args(["--locked", "--format-version", "1"])
        .args(["--filter-platform", architecture.target()]);
    let metadata = read(&mut metadata)?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    packages
        .iter()
        .map(|package| {
            let field = |name: &str| package[name].as_str().with_context(|| format!("no {name}"));
            let manifest = Path::new(field("manifest_path")?);
            let directory = manifest.parent().context("no directory")?.to_owned();
            Ok((
                format!("{} {}", field("name")?, field("version")?),
                directory,
            ))
        })
        .collect()
}

/// The files of a crate that are licences by their names, sorted.
fn licence_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| {
        let name = file_name(file).to_uppercase();
        let starts = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
        file.is_file() && starts.iter().any(|start| name.starts_with(start))
    });
    files.sort();
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn text(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
