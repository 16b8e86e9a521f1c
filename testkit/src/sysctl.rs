//! Settings of the kernel, changed for a while.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::janitor::{self, Task};

/// Restores the setting when dropped. The janitor does it for a test that is killed.
pub struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets `name`, such as `kernel/bpf_stats_enabled`, to `value`.
    pub fn set(name: &str, value: &str) -> Result<Self> {
        let path = PathBuf::from("/proc/sys").join(name);
        let shown = || path.display().to_string();
        let before = fs::read_to_string(&path).with_context(shown)?;
        janitor::register(&Task::Write(path.clone(), before.clone()))?;
        fs::write(&path, value).with_context(shown)?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        // If it fails, so does the janitor, and the setting cannot be restored.
        let _restored = fs::write(&self.path, &self.before);
    }
}
