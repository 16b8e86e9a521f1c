//! Cgroups of a test.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{command::require_root, janitor};

/// The prefix of the names of tests' cgroups; the rest is `<pid>-<n>`.
pub const PREFIX: &str = "interceptor-test-";

/// Time limit of the exit of killed processes.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A cgroup of the test below the mount's root. Deleted with its processes when dropped, or when
/// the test process exits.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates one. The first call deletes those of exited test processes.
    pub fn new() -> Result<Self> {
        static SWEPT: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);

        require_root()?;
        let mount = mount()?;
        SWEPT.call_once(|| sweep(&mount));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("{PREFIX}{}-{number}", process::id()));
        janitor::register(&janitor::Task::RemoveCgroup(path.clone()))?;
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A cgroup below it, created if missing: `a/b`.
    pub fn child(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

/// The mount point of cgroup2.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .find(|(_, kind)| kind.starts_with("cgroup2 "))
        .and_then(|(mount, _)| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .context("cgroup2 is not mounted")
}

/// Whether a path has the name of a test's cgroup.
pub(crate) fn is_of_tests(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(PREFIX))
}

/// Deletes the cgroups of exited test processes.
pub fn sweep(mount: &Path) {
    for path in stale(mount) {
        // Another test's sweep may have been faster; the next sweep retries.
        let _removed = remove(&path);
    }
}

/// The cgroups of exited test processes.
#[must_use]
pub fn stale(mount: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(mount) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| creator(&entry.file_name().to_string_lossy()).is_some_and(has_exited))
        .map(|entry| entry.path())
        .collect()
}

/// The process that created the cgroup of this name.
fn creator(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn has_exited(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// Kills the processes in the cgroup, all of which are tests', and deletes it with its descendants.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    let deadline = Instant::now() + EXIT_TIMEOUT;
    loop {
        match remove_tree(path) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(5)),
            Ok(()) => return Ok(()),
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_contains_the_creators_pid() {
        assert_eq!(creator("interceptor-test-12-3"), Some(12));
        assert_eq!(creator("interceptor-test-x-3"), None);
        assert_eq!(creator("kubepods"), None);
    }

    #[test]
    fn this_process_has_not_exited() {
        assert!(!has_exited(process::id()));
        assert!(has_exited(u32::MAX));
    }
}
