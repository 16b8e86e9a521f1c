//! The archive for one architecture: the binary with its licences, bill of materials, manual pages and
//! completions.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    command::{exec, read},
    contents::Contents,
    paths,
    tarball::Tarball,
};

/// The shells, and the files in which they look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "interceptor.bash"),
    ("fish", "interceptor.fish"),
    ("zsh", "_interceptor"),
];

/// Files that the binary writes, by their paths; for each architecture the same.
pub(super) struct Documents(Vec<(String, Vec<u8>)>);

/// Runs the binary, which must be one for this machine.
pub(super) fn documents(binary: &Path) -> Result<Documents> {
    let mut documents = Vec::new();
    for (shell, name) in COMPLETIONS {
        let text = read(Command::new(binary).args(["completions", shell]))?;
        documents.push((format!("completions/{name}"), text.into_bytes()));
    }
    let pages = paths::target().join("dist-man");
    // A killed run may have left pages.
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    exec(Command::new(binary).args(["man", "--output"]).arg(&pages))?;
    for entry in fs::read_dir(&pages)? {
        let path = entry?.path();
        let name = path.file_name().context("a page has no name")?;
        let content = fs::read(&path)?;
        documents.push((format!("man/{}", name.to_string_lossy()), content));
    }
    fs::remove_dir_all(&pages)?;
    documents.sort();
    Ok(Documents(documents))
}

/// The archive, whose only directory is `name`.
pub(super) fn package(name: &str, contents: &Contents, documents: &Documents) -> Result<Vec<u8>> {
    let mut tarball = Tarball::new();
    tarball.directory(name)?;
    tarball.file(&format!("{name}/interceptor"), 0o755, &contents.binary)?;
    tarball.file(
        &format!("{name}/interceptor.cdx.json"),
        0o644,
        &contents.sbom,
    )?;
    for licence in &contents.licences {
        let path = format!("{name}/licenses/{}", licence.name);
        tarball.file(&path, 0o644, &licence.text)?;
    }
    for (path, content) in &documents.0 {
        tarball.file(&format!("{name}/{path}"), 0o644, content)?;
    }
    tarball.into_gzip()
}
