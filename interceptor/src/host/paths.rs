//! Finds the host's path of a directory that a container has mounted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{HostProcess, identity};

/// A line of `mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
struct Mount<'a> {
    device: &'a str,
    /// The part of the file system that is mounted.
    root: &'a Path,
    point: &'a Path,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            device,
            root: Path::new(root),
            point: Path::new(point),
        })
    }
}

/// The host's path of the directory `path` of this process. `None` if there is none, or the host's
/// processes are not visible (in a container, without hostPID).
#[must_use]
pub(crate) fn on_host(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let host = HostProcess::find().ok()?;
    let own = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    let hosts = fs::read_to_string(host.file("mountinfo")).ok()?;
    let ours = identity(path.to_str()?).ok()?;
    // Another mount may hide it there.
    let is_same = |there: &PathBuf| {
        let seen = host.file(&format!("root{}", there.display()));
        identity(&seen).is_ok_and(|seen| seen == ours)
    };
    candidates(&path, &own, &hosts).into_iter().find(is_same)
}

/// The possible paths in the mounts of `hosts`, first those that show more of the file system.
fn candidates(path: &Path, own: &str, hosts: &str) -> Vec<PathBuf> {
    let mounts = own.lines().filter_map(Mount::read);
    let above = mounts.filter(|mount| path.starts_with(mount.point));
    // Of two at one mount point, the later hides the other.
    let Some(mount) = above.max_by_key(|mount| mount.point.as_os_str().len()) else {
        return Vec::new();
    };
    let Ok(rest) = path.strip_prefix(mount.point) else {
        return Vec::new();
    };
    let file = mount.root.join(rest);
    let same = hosts.lines().filter_map(Mount::read);
    let mut same: Vec<_> = same.filter(|other| other.device == mount.device).collect();
    same.sort_by_key(|mount| mount.root.as_os_str().len());
    let path = |mount: Mount<'_>| Some(mount.point.join(file.strip_prefix(mount.root).ok()?));
    same.into_iter().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    const HOST: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 254:2 / /var/lib rw - ext4 /dev/vda2 rw
31 22 0:27 / /run rw - tmpfs tmpfs rw";

    #[test]
    fn a_mount_in_a_container_is_found_on_the_host() {
        let own = "\
90 80 0:99 / / ro - overlay overlay ro
91 90 254:1 /etc/cni/net.d /host/etc/cni/net.d rw - ext4 /dev/vda1 rw
92 90 254:2 /rancher/k3s/cni /host/opt/cni/bin rw - ext4 /dev/vda2 rw";
        let found = |path: &str| candidates(Path::new(path), own, HOST);
        assert_eq!(found("/host/etc/cni/net.d"), [Path::new("/etc/cni/net.d")]);
        assert_eq!(
            found("/host/opt/cni/bin"),
            [Path::new("/var/lib/rancher/k3s/cni")]
        );
        assert_eq!(found("/anything"), [""; 0].map(PathBuf::from));
    }

    /// The thread stands in for a container: it has a mount namespace of its own.
    #[test]
    fn a_directory_is_found_behind_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let [there, here] = ["there", "here"].map(|name| dir.path().join(name));
        fs::create_dir(&there).unwrap();
        fs::create_dir(&here).unwrap();
        let nothing: Option<&str> = None;
        let in_container = || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            mount(
                nothing,
                "/",
                nothing,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                nothing,
            )
            .unwrap();
            mount(Some(&there), &here, nothing, MsFlags::MS_BIND, nothing).unwrap();
            on_host(&here)
        };
        let found = thread::scope(|scope| scope.spawn(in_container).join().unwrap());
        assert_eq!(found, Some(there.canonicalize().unwrap()));
    }

    #[test]
    fn a_path_on_the_host_itself_is_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(
            candidates(Path::new("/etc/cni/net.d"), HOST, HOST),
            [Path::new("/etc/cni/net.d")]
        );
        // None if process 1 is not visible.
        assert!(on_host(&path).is_none_or(|found| found == path));
        assert_eq!(on_host(Path::new("/nowhere")), None);
    }
}
