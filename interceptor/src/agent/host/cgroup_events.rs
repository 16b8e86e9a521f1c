//! Watches for new cgroups, and for the first process of a cgroup to start or the last to exit.
//!
//! The kernel reports both by inotify: a new cgroup is a new directory, and `cgroup.events` is modified
//! whenever its `populated` changes (`cgroup_update_populated`).

use std::{cell::RefCell, collections::HashMap, io, path::Path, rc::Rc};

use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};

use super::inotify::Inotify;

/// A change of the watched cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupEvent {
    /// A cgroup was created in a watched directory.
    Created,
    /// The first process of the pod with this UID has started, or its last process has exited.
    Populated(Rc<str>),
    /// The cgroup of the pod with this UID was deleted: no more events follow.
    Unwatched(Rc<str>),
    /// The kernel's queue overflowed: events are lost.
    Overflow,
}

/// The watched cgroups.
pub struct CgroupEvents {
    inotify: Inotify,
    pods: RefCell<HashMap<WatchDescriptor, Rc<str>>>,
}

impl CgroupEvents {
    /// Without watches.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::new()?,
            pods: RefCell::default(),
        })
    }

    /// Watches for cgroups that are created in `dir`. Idempotent.
    pub fn watch_dir(&self, dir: &Path) -> io::Result<()> {
        let created = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add(dir, created).map(drop)
    }

    /// Watches the pod `uid` with the cgroup at `path`, until the cgroup is deleted.
    pub fn watch_pod(&self, uid: &str, path: &Path) -> io::Result<()> {
        let file = path.join("cgroup.events");
        let descriptor = self.inotify.add(&file, AddWatchFlags::IN_MODIFY)?;
        self.pods.borrow_mut().insert(descriptor, uid.into());
        Ok(())
    }

    /// Stops watching the pod `uid`.
    pub fn forget_pod(&self, uid: &str) {
        self.pods.borrow_mut().retain(|descriptor, pod| {
            let keep = **pod != *uid;
            if !keep {
                // Fails if the cgroup was deleted, and the watch with it.
                let _removed = self.inotify.remove(*descriptor);
            }
            keep
        });
    }

    /// Waits for the next changes.
    pub async fn next(&self) -> io::Result<Vec<CgroupEvent>> {
        let mut events = Vec::new();
        for event in self.inotify.next().await? {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                events.push(CgroupEvent::Overflow);
            } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                let unwatched = self.pods.borrow_mut().remove(&event.wd);
                events.extend(unwatched.map(CgroupEvent::Unwatched));
            } else if event.mask.contains(AddWatchFlags::IN_CREATE) {
                events.push(CgroupEvent::Created);
            } else if let Some(uid) = self.pods.borrow().get(&event.wd) {
                events.push(CgroupEvent::Populated(uid.clone()));
            }
        }
        events.dedup();
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_deleted_cgroup_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        fs::create_dir(&pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 0").unwrap();
        let events = CgroupEvents::new().unwrap();
        events.watch_pod("a-uid", &pod).unwrap();
        fs::remove_dir_all(&pod).unwrap();
        let unwatched = CgroupEvent::Unwatched("a-uid".into());
        assert_eq!(events.next().await.unwrap(), [unwatched]);
        assert!(events.pods.borrow().is_empty());
        // A new cgroup at the same path can be watched.
        fs::create_dir(&pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 0").unwrap();
        events.watch_pod("a-uid", &pod).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 1").unwrap();
        let reported = events.next().await.unwrap();
        assert_eq!(reported, [CgroupEvent::Populated("a-uid".into())]);
    }
}
