//! The project's documents: Markdown files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::paths;

pub(crate) mod markdown;

/// All of them, by their paths from the workspace's root: those of the root itself, and those below these
/// directories.
pub(crate) fn all() -> Result<Vec<PathBuf>> {
    let mut documents = directly_in(Path::new(""))?.documents;
    for dir in ["docs", "tests"] {
        documents.extend(below(Path::new(dir))?);
    }
    documents.sort();
    Ok(documents)
}

/// The text of a document.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(paths::root().join(path))
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Whether the name of a file is that of a document.
pub(crate) fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let Directory {
        mut documents,
        directories,
    } = directly_in(dir)?;
    for dir in directories {
        documents.extend(below(&dir)?);
    }
    Ok(documents)
}

struct Directory {
    documents: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

fn directly_in(dir: &Path) -> Result<Directory> {
    let path = paths::root().join(dir);
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = Directory {
        documents: Vec::new(),
        directories: Vec::new(),
    };
    for entry in entries {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.directories.push(path);
        } else if is_document(&path) {
            found.documents.push(path);
        }
    }
    Ok(found)
}
