//! The programs of Debian that a guest has: busybox, modprobe, and those that the kernel tests call.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{debian::Packages, root::Root};
use crate::{architecture::Architecture, paths};

/// The programs that the kernel tests call.
pub(super) const PROGRAMS: [&str; 20] = [
    "ip",
    "ip6tables",
    "ip6tables-legacy-restore",
    "ip6tables-nft-restore",
    "ip6tables-restore",
    "iptables",
    "iptables-legacy-restore",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-restore",
    "iptables-save",
    "mount",
    "nft",
    "nsenter",
    "setpriv",
    "sh",
    "sysctl",
    "tc",
    "timeout",
    "unshare",
];

/// The packages with all of them, for another architecture.
const PACKAGES: [&str; 10] = [
    "busybox-static",
    "coreutils",
    "dash",
    "iproute2",
    "iptables",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "util-linux",
];
/// The suite of these packages: the one whose iptables the tests know.
const SUITE: &str = "bookworm";
/// Names that the installation of iptables would make, and their program.
const ALTERNATIVES: [&str; 6] = [
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
];
const NFT: &str = "xtables-nft-multi";

/// Where a guest's programs are from.
pub(super) enum Userland {
    /// They are this machine's, copied with their shared libraries.
    ThisMachines,
    /// They are in this directory, with everything that they need, and are of this architecture.
    Unpacked(PathBuf, Architecture),
}

impl Userland {
    /// Programs for another architecture than this machine's; downloaded once.
    pub(super) fn of_another(architecture: Architecture) -> Result<Self> {
        let root = paths::target().join(format!("vm/userland-{architecture}"));
        let packages = Packages {
            suites: &[SUITE],
            architecture,
            root: &root,
        };
        packages.ensure(|apt| apt.with_dependencies(&PACKAGES))?;
        complete(&root)?;
        Ok(Self::Unpacked(root, architecture))
    }

    /// Adds the programs to a guest's root.
    pub(super) fn copy(&self, root: &Root, with_tests: bool) -> Result<()> {
        match self {
            Self::ThisMachines => copy_this_machines(root, with_tests),
            Self::Unpacked(directory, _) => root.tree(directory),
        }
    }

    /// Adds a program of the workspace to a guest's root, without debug information, which would be most of
    /// the archive. Those for another architecture are static.
    pub(super) fn copy_own(&self, root: &Root, program: &Path, path: &str) -> Result<()> {
        match self {
            Self::ThisMachines => {
                root.program(program, path)?;
                root.strip(path, "strip")
            }
            Self::Unpacked(_, architecture) => {
                root.file(program, path)?;
                root.strip(path, &format!("{}-linux-gnu-strip", architecture.name()))
            }
        }
    }
}

fn copy_this_machines(root: &Root, with_tests: bool) -> Result<()> {
    root.file(Path::new("/bin/busybox"), "/bin/busybox")?;
    // The kernel runs it to load modules on demand.
    root.program(Path::new("/sbin/modprobe"), "/sbin/modprobe")?;
    if !with_tests {
        return Ok(());
    }
    for name in PROGRAMS {
        let program = paths::program(name).with_context(|| format!("no program {name}"))?;
        root.program(&program, &format!("/usr/bin/{name}"))?;
    }
    // What iptables loads.
    root.directory(Path::new("/usr/lib/x86_64-linux-gnu/xtables"))
}

/// Does what the installation of the packages would do, and leaves out what no program reads.
fn complete(root: &Path) -> Result<()> {
    let programs = root.join("usr/sbin");
    for name in ALTERNATIVES {
        let link = programs.join(name);
        if link.symlink_metadata().is_err() {
            symlink(NFT, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    let documentation = root.join("usr/share");
    if documentation.exists() {
        fs::remove_dir_all(&documentation)?;
    }
    for name in PROGRAMS {
        let exists = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|dir| root.join(dir).join(name).symlink_metadata().is_ok());
        ensure!(exists, "Debian's packages have no program {name}");
    }
    Ok(())
}
