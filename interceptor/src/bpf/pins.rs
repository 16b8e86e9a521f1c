//! What keeps the interception in force when no process of ours runs: pins on the host's bpffs.
//!
//! ```text
//! /sys/fs/bpf/interceptor/v1/
//!   maps/icept_policies-1a2b3c4d …        shared by all pods, and by builds that define them alike
//!   programs/<build>/icept_connect4 …     shared by all pods
//!   cgroups/<cgroup ID>/icept_connect4 …  links, one set per cgroup that pods are attached at
//!   netns/<netns cookie>/icept_lookup     the link of each captured network namespace
//!                       /icept_ingress-2 … and those of its interfaces that are watched
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

/// Ours on it.
const ROOT: &str = "interceptor";

/// Counts up with every incompatible change of what is pinned.
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

    /// Pins of the same layout in another folder, to try things out in.
    #[must_use]
    pub fn named(dir: &str) -> Self {
        Self {
            root: Path::new(BPFFS).join(dir),
        }
    }

    fn layout(&self) -> PathBuf {
        self.root.join(LAYOUT)
    }

    /// The folder of the shared maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.layout().join("maps")
    }

    /// The folder of the shared programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.layout().join("programs")
    }

    fn cgroups(&self) -> PathBuf {
        self.layout().join("cgroups")
    }

    /// The folder of the links to the cgroup with this ID.
    #[must_use]
    pub fn cgroup(&self, id: u64) -> PathBuf {
        self.cgroups().join(id.to_string())
    }

    fn namespaces(&self) -> PathBuf {
        self.layout().join("netns")
    }

    /// The folder of the link to this network namespace.
    #[must_use]
    pub fn netns(&self, cookie: NetnsCookie) -> PathBuf {
        self.namespaces().join(cookie.to_string())
    }

    /// Whether anything of ours is pinned, complete or not.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.root.exists()
    }

    /// Exists while an attach or a detach is at work; what is left of one that was killed is then
    /// looked for.
    fn unfinished(&self) -> PathBuf {
        self.layout().join("unfinished")
    }

    /// Notes that a change begins. Answers whether one before it was not finished.
    pub fn begin_change(&self) -> Result<bool> {
        let unfinished = self.unfinished().exists();
        create_dir(&self.unfinished())?;
        Ok(unfinished)
    }

    /// Notes that a change is complete.
    pub fn finish_change(&self) -> Result<()> {
        remove_tree(&self.unfinished())
    }

    /// Makes the folders that everything shared is pinned in.
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

    /// Takes everything away: what uses something before what it uses.
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

/// Makes a folder, and those above it, that only root can look into.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Takes away a folder and all pins in it; it may be gone already.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pins in {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The names of what is in a folder, which may not be there.
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

/// Those that are numbers.
fn numbers_in(dir: &Path) -> Result<Vec<u64>> {
    let names = names_in(dir)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
