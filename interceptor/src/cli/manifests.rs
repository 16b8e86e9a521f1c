//! The manifests that are read.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// A file, or standard input.
pub(super) struct Source {
    pub(super) path: Option<PathBuf>,
    pub(super) text: String,
}

impl Source {
    pub(super) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "standard input".to_owned(),
        }
    }
}

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all files; standard input if there are none.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Source>> {
    if paths.is_empty() {
        if io::stdin().is_terminal() {
            bail!("no manifests: name files with -f, or write them to standard input");
        }
        return Ok(vec![standard_input()?]);
    }
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(standard_input()?);
        } else if path.is_dir() {
            for path in files_of(path)? {
                sources.push(file(path)?);
            }
        } else {
            sources.push(file(path.clone())?);
        }
    }
    Ok(sources)
}

fn standard_input() -> Result<Source> {
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.context("cannot read standard input")?;
    Ok(Source { path: None, text })
}

fn file(path: PathBuf) -> Result<Source> {
    if path.to_str().is_some_and(|path| path.contains("://")) && !path.exists() {
        bail!(
            "{} is a URL, which is not read: download it, and name the file",
            path.display()
        );
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let path = Some(path);
    Ok(Source { path, text })
}

/// The manifests of a directory in the order of their names. Subdirectories are not read.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let problem = || format!("cannot read directory {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(problem)? {
        let path = entry.with_context(problem)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!(
            "directory {} has no file *.yaml, *.yml or *.json",
            directory.display()
        );
    }
    files.sort();
    Ok(files)
}
