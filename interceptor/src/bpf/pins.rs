//! The pins on the host's bpffs, which keep pods captured while no process of ours runs.
//!
//! ```text
//! /sys/fs/bpf/interceptor/v1/
//!   maps/icept_policies-1a2b3c4d …        shared by all pods, and by builds with equal definitions
//!   programs/<build>/icept_connect4 …     shared by all pods
//!   cgroups/<cgroup ID>/icept_connect4 …  links, one set per cgroup that pods are attached to
//!   netns/<netns cookie>/icept_lookup     the link of each captured network namespace
//!                       /icept_ingress-2 … and those of its interfaces
//! ```

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::NetnsCookie;

use crate::host::BPFFS;

/// Our directory on the bpffs.
const ROOT: &str = "interceptor";

/// Incremented with every incompatible change of the pins.
const LAYOUT: &str = "v1";

/// The layout of the pins below one bpffs.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins on the host's bpffs.
    #[must_use]
    pub fn new() -> Self {
        Self::named(ROOT)
    }

    /// Pins of the same layout in another directory, for probes and tests.
    #[must_use]
    pub fn named(dir: &str) -> Self {
        Self {
            root: Path::new(BPFFS).join(dir),
        }
    }

    fn layout(&self) -> PathBuf {
        self.root.join(LAYOUT)
    }

    /// The directory of the shared maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.layout().join("maps")
    }

    /// The directory of the shared programs, with one directory per build.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.layout().join("programs")
    }

    fn cgroups(&self) -> PathBuf {
        self.layout().join("cgroups")
    }

    /// The directory of the links to the cgroup with this ID.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> PathBuf {
        self.cgroups().join(id.to_string())
    }

    fn namespaces(&self) -> PathBuf {
        self.layout().join("netns")
    }

    /// The directory of the links to this network namespace and its interfaces.
    #[must_use]
    pub fn netns(&self, cookie: NetnsCookie) -> PathBuf {
        self.namespaces().join(cookie.to_string())
    }

    /// Whether anything of ours is pinned, complete or not.
    pub fn exist(&self) -> Result<bool> {
        exists(&self.root)
    }

    /// Exists while an attach or a detach runs. If a killed one has left it, the next command removes
    /// what that one has added.
    fn unfinished(&self) -> PathBuf {
        self.layout().join("unfinished")
    }

    /// Marks the start of a change. Returns whether the previous one was not finished.
    pub fn begin_change(&self) -> Result<bool> {
        let unfinished = exists(&self.unfinished())?;
        create_dir(&self.unfinished())?;
        Ok(unfinished)
    }

    /// Marks the end of a change.
    pub fn finish_change(&self) -> Result<()> {
        remove_tree(&self.unfinished())
    }

    /// Creates the directories of all pins.
    pub fn create(&self) -> Result<()> {
        [
            self.maps(),
            self.programs(),
            self.cgroups(),
            self.namespaces(),
        ]
        .iter()
        .try_for_each(|path| create_dir(path))
    }

    /// The cgroups that links are pinned for.
    pub fn cgroup_ids(&self) -> Result<Vec<u64>> {
        numbers_in(&self.cgroups())
    }

    /// The network namespaces that links are pinned for.
    pub fn netns_cookies(&self) -> Result<Vec<NetnsCookie>> {
        numbers_in(&self.namespaces())
    }

    /// Removes everything, users before what they use.
    pub fn remove_all(&self) -> Result<()> {
        [
            self.namespaces(),
            self.cgroups(),
            self.programs(),
            self.root.clone(),
        ]
        .iter()
        .try_for_each(|path| remove_tree(path))
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates a directory, and those above it, that only root can read.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Whether a pin or a directory exists. An error is not taken for "no": what seems to be missing is
/// created again, and what it belongs to is removed.
pub fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .with_context(|| format!("cannot find out whether {} exists", path.display()))
}

/// Removes a directory and all pins in it, if it exists.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The names of the entries of a directory; none if it does not exist.
pub fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    }
    .with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// The names that are numbers.
fn numbers_in(dir: &Path) -> Result<Vec<u64>> {
    let names = names_in(dir)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
