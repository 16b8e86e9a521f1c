//! The cgroups that pods are attached to.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

/// Every cgroup except the hierarchy's root has this file.
const NON_ROOT_FILE: &str = "cgroup.events";

/// The mounted cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Which cgroup of the hierarchy the mount shows; `/` unless it is a bind mount.
    root: PathBuf,
}

impl Hierarchy {
    /// Finds the mount.
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .context("cannot read /proc/self/mountinfo")?;
        Self::in_mounts(&mounts).context(
            "no cgroup2 hierarchy is mounted: mount one, `mount -t cgroup2 none /sys/fs/cgroup`",
        )
    }

    /// `36 35 0:30 ROOT MOUNTPOINT options… - cgroup2 SOURCE options` (`proc(5)`)
    fn in_mounts(mounts: &str) -> Option<Self> {
        mounts.lines().find_map(|line| {
            let (fields, kind) = line.split_once(" - ")?;
            if !kind.starts_with("cgroup2 ") {
                return None;
            }
            let mut fields = fields.split(' ').skip(3);
            Some(Self {
                root: fields.next()?.into(),
                mount: fields.next()?.into(),
            })
        })
    }

    /// The mounted path of a cgroup in `/proc/PID/cgroup`.
    fn path_of(&self, cgroup: &Path) -> PathBuf {
        let below_mount = cgroup.strip_prefix(&self.root).unwrap_or(cgroup);
        self.mount
            .join(below_mount.strip_prefix("/").unwrap_or(below_mount))
    }

    /// The cgroup of the process whose `/proc/PID/cgroup` reads `text`, as a path below the mount.
    #[must_use]
    pub fn cgroup_of_process(&self, text: &str) -> Option<PathBuf> {
        let cgroup = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(self.path_of(Path::new(cgroup)))
    }
}

/// An open cgroup.
#[derive(Debug)]
pub struct Cgroup {
    file: File,
    path: PathBuf,
    id: u64,
    /// Where its hierarchy is mounted.
    mount: PathBuf,
}

impl Cgroup {
    /// Opens the cgroup at `path`, or the hierarchy's root.
    ///
    /// The root of a cgroup namespace is refused unless it is named explicitly: programs there run only
    /// for the sockets of this container.
    pub fn open(hierarchy: &Hierarchy, path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            let root = Self::open_path(hierarchy, &hierarchy.mount)?;
            let non_root = hierarchy.mount.join(NON_ROOT_FILE);
            let is_non_root = non_root.try_exists();
            if is_non_root.with_context(|| format!("cannot read {}", non_root.display()))? {
                bail!(
                    "{} is the root of a cgroup namespace, not of the host's cgroup hierarchy: \
                     programs attached there would miss the pods. Run in the host's cgroup \
                     namespace (`nsenter --cgroup --target 1`), or name a cgroup with --cgroup",
                    hierarchy.mount.display()
                );
            }
            return Ok(root);
        };
        Self::open_path(hierarchy, path)
    }

    fn open_path(hierarchy: &Hierarchy, path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path)
            .with_context(|| format!("--cgroup {}: no such cgroup", path.display()))?;
        let file = File::open(&path)
            .with_context(|| format!("cannot open the cgroup {}", path.display()))?;
        let kind = fstatfs(&file)
            .with_context(|| format!("cannot read the file system type of {}", path.display()))?
            .filesystem_type();
        if kind != CGROUP2_SUPER_MAGIC || !file.metadata()?.is_dir() {
            bail!(
                "--cgroup {}: not a cgroup of the cgroup2 hierarchy: expected a directory below its \
                 mount",
                path.display()
            );
        }
        // The ID of a cgroup is its inode number (kernfs, 64-bit).
        let id = file.metadata()?.ino();
        let mount = hierarchy.mount.clone();
        Ok(Self {
            file,
            path,
            id,
            mount,
        })
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The kernel's ID of the cgroup, not reused until reboot.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether programs attached here run for the sockets of `cgroup`.
    #[must_use]
    pub fn covers(&self, cgroup: &Path) -> bool {
        // A cgroup outside our cgroup namespace is named "/../…" (`cgroup_namespaces(7)`).
        let is_outside = cgroup.components().any(|part| part == Component::ParentDir);
        cgroup.starts_with(&self.path) && !is_outside
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 20 0:25 / /sys rw - sysfs sysfs rw
40 30 0:30 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw
41 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let hierarchy = Hierarchy::in_mounts(MOUNTS).unwrap();
        assert_eq!(hierarchy.mount, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(
            Hierarchy::in_mounts("30 20 0:25 / /sys rw - sysfs sysfs rw"),
            None
        );
    }

    #[test]
    fn the_cgroup_of_a_process_is_below_the_mount() {
        let hierarchy = Hierarchy::in_mounts(MOUNTS).unwrap();
        let cgroup = |text| hierarchy.cgroup_of_process(text).unwrap();
        let mount = Path::new("/sys/fs/cgroup/unified");
        assert_eq!(
            cgroup("3:cpu:/x\n0::/kubepods/pod1\n"),
            mount.join("kubepods/pod1")
        );
        assert_eq!(cgroup("0::/\n"), mount.join(""));
    }

    #[test]
    fn a_bind_mount_shows_a_part_of_the_hierarchy() {
        let mounts = "40 30 0:30 /kubepods /pods rw - cgroup2 cgroup2 rw";
        let hierarchy = Hierarchy::in_mounts(mounts).unwrap();
        assert_eq!(
            hierarchy.cgroup_of_process("0::/kubepods/pod1").unwrap(),
            Path::new("/pods/pod1")
        );
    }
}
