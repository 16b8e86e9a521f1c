//! Files of the sources: those that git tracks, so that a release contains nothing else.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{command::read, paths};

/// A file, by its path below the directory.
pub(super) struct Tracked {
    pub(super) path: String,
    pub(super) text: String,
}

/// The files below a directory of the workspace, sorted by their paths.
pub(super) fn tracked(directory: &str) -> Result<Vec<Tracked>> {
    let list = read(
        Command::new("git")
            .current_dir(paths::root().join(directory))
            .args(["ls-files", "-z"]),
    )
    .context("a release is made in a git repository")?;
    let mut files = list
        .split_terminator('\0')
        .map(|path| {
            let file = paths::root().join(directory).join(path);
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let path = path.to_owned();
            Ok(Tracked { path, text })
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(!files.is_empty(), "git tracks no file in {directory}");
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}
