//! The licences of everything in the binary, which require that their text is distributed with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::crates;
use crate::{architecture::Architecture, paths};

/// The licence of the C library, which is in the binary too.
const C_LIBRARY: &str = "/usr/share/doc/libc6-dev/copyright";

/// A file with licences.
pub(crate) struct Licence {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

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
    let mut third_party = Vec::new();
    for linked in crates::linked(architecture)? {
        for file in licence_files(&linked.directory)? {
            let (name, version, file_name) = (&linked.name, &linked.version, file_name(&file));
            third_party.extend(format!("\n==== {name} {version}: {file_name}\n\n").bytes());
            third_party.extend(text(&file)?);
        }
    }
    licences.push(Licence {
        name: "third-party".to_owned(),
        text: third_party,
    });
    Ok(licences)
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
