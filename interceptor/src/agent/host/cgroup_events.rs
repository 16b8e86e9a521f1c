//! Watches for new cgroups, and for the first process of a cgroup to start or the last to exit.
//!
//! The kernel reports both by inotify: a new cgroup is a new folder, and `cgroup.events` is modified
//! whenever its `populated` changes (`cgroup_update_populated`).

use std::{cell::RefCell, collections::HashMap, io, path::Path, rc::Rc};

use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};

use super::inotify::Inotify;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupEvent {
    /// A cgroup was made in a watched directory.
    Made,
    /// The cgroup of the pod with this UID has its first process, or has lost its last.
    Populated(Rc<str>),
    /// The cgroup of the pod with this UID was deleted: no more events follow.
    Unwatched(Rc<str>),
    /// More has happened than the kernel could note.
    Overflow,
}

/// The watched cgroups.
pub struct CgroupEvents {
    inotify: Inotify,
    pods: RefCell<HashMap<WatchDescriptor, Rc<str>>>,
}

impl CgroupEvents {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::new()?,
            pods: RefCell::default(),
        })
    }

    /// Watches for cgroups that are created in `directory`. Idempotent.
    pub fn watch_dir(&self, folder: &Path) -> io::Result<()> {
        let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add(folder, made).map(drop)
    }

    /// Tells of the processes of the pod `uid`, whose cgroup is at `path`. Ends with the cgroup.
    pub fn watch_pod(&self, uid: &str, path: &Path) -> io::Result<()> {
        let file = path.join("cgroup.events");
        let descriptor = self.inotify.add(&file, AddWatchFlags::IN_MODIFY)?;
        self.pods.borrow_mut().insert(descriptor, uid.into());
        Ok(())
    }

    /// Tells no more of the pod `uid`.
    pub fn forget_pod(&self, uid: &str) {
        self.pods.borrow_mut().retain(|descriptor, pod| {
            let keep = **pod != *uid;
            if !keep {
                // Gone already, if the cgroup is.
                let _gone = self.inotify.remove(*descriptor);
            }
            keep
        });
    }

    /// What happens next.
    pub async fn next(&self) -> io::Result<Vec<CgroupEvent>> {
        let mut told = Vec::new();
        for event in self.inotify.next().await? {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                told.push(CgroupEvent::Overflow);
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                let gone = self.pods.borrow_mut().remove(&event.wd);
                told.extend(gone.map(CgroupEvent::Unwatched));
            } else if event.mask.contains(AddWatchFlags::IN_CREATE) {
                told.push(CgroupEvent::Made);
            } else if let Some(uid) = self.pods.borrow().get(&event.wd) {
                told.push(CgroupEvent::Populated(uid.clone()));
            }
        }
        told.dedup();
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn that_a_cgroup_is_gone_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let pod = folder.path().join("pod");
        fs::create_dir(&pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 0").unwrap();
        let events = CgroupEvents::new().unwrap();
        events.watch_pod("a-uid", &pod).unwrap();
        fs::remove_dir_all(&pod).unwrap();
        let gone = CgroupEvent::Unwatched("a-uid".into());
        assert_eq!(events.next().await.unwrap(), [gone]);
        assert!(events.pods.borrow().is_empty());
        // Once it is there again it is watched again.
        fs::create_dir(&pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 0").unwrap();
        events.watch_pod("a-uid", &pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 1").unwrap();
        let told = events.next().await.unwrap();
        assert_eq!(told, [CgroupEvent::Populated("a-uid".into())]);
    }
}
