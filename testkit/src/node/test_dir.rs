//! A directory of the node below `/run`, where sockets and mounts are permitted.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::janitor::{self, Task};

/// The directory. Deleted with its contents when dropped, or when the test process exits.
pub(super) struct TestDir(PathBuf);

impl TestDir {
    pub(super) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/run/interceptor-test-{}-{number}", process::id());
        let path = PathBuf::from(path);
        janitor::register(&Task::RemoveDir(path.clone()))?;
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
