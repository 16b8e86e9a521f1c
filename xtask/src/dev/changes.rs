//! Changes of the sources that a build reads, by the times in the file system.
//!
//! Polled, because a scan of a few hundred files takes a few milliseconds, and editors replace
//! files in ways that a watch on a file would miss.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};

use crate::paths;

/// The files and directories that a development build reads.
const SOURCES: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "interceptor-ebpf",
    "interceptor/Cargo.toml",
    "interceptor/build.rs",
    "interceptor/src",
];

/// All files with their modification times.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot(BTreeMap<PathBuf, SystemTime>);

impl Snapshot {
    pub(super) fn of_sources() -> Result<Self> {
        let mut snapshot = Self::default();
        for source in SOURCES {
            snapshot
                .add(&paths::root().join(source))
                .with_context(|| format!("cannot read {source}"))?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // Deleted during the scan, such as an editor's temporary file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !metadata.is_dir() {
            self.0.insert(path.to_owned(), metadata.modified()?);
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if !is_temporary(&path) {
                self.add(&path)?;
            }
        }
        Ok(())
    }

    /// A file that is new, deleted or changed since the other snapshot.
    pub(super) fn change_since(&self, earlier: &Self) -> Option<PathBuf> {
        let now = self
            .0
            .iter()
            .find(|(path, time)| earlier.0.get(*path) != Some(time));
        let deleted = || {
            earlier
                .0
                .iter()
                .find(|(path, _)| !self.0.contains_key(*path))
        };
        now.or_else(deleted).map(|(path, _)| path.clone())
    }
}

/// Swap and backup files of editors.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.ends_with('~') || name == "4913"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn snapshot(files: &[(&str, u64)]) -> Snapshot {
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let files = files
            .iter()
            .map(|(path, seconds)| (PathBuf::from(path), time(*seconds)));
        Snapshot(files.collect())
    }

    #[test]
    fn new_deleted_and_changed_files_are_changes() {
        let earlier = snapshot(&[("a.rs", 1), ("b.rs", 1)]);
        let change = |files: &[(&str, u64)]| snapshot(files).change_since(&earlier);
        assert_eq!(change(&[("a.rs", 1), ("b.rs", 1)]), None);
        assert_eq!(change(&[("a.rs", 1), ("b.rs", 2)]), Some("b.rs".into()));
        assert_eq!(change(&[("a.rs", 1)]), Some("b.rs".into()));
        assert_eq!(
            change(&[("a.rs", 1), ("b.rs", 1), ("c.rs", 1)]),
            Some("c.rs".into())
        );
    }

    #[test]
    fn temporary_files_of_editors_are_ignored() {
        for name in [".main.rs.swp", "main.rs~", "4913"] {
            assert!(is_temporary(Path::new(name)), "{name}");
        }
        assert!(!is_temporary(Path::new("main.rs")));
    }
}
