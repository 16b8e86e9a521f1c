//! Waiting for changes in folders.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

/// What can make a file another, or a folder.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A watch on folders.
pub(super) struct Watch(AsyncFd<Events>);

/// What tokio asks for, which nix's type is not.
struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the descriptor is the inotify's own, which lives within the `AsyncFd` and has no
        // other for as long.
        let events =
            unsafe { AsyncFd::register_with_interest(Events(inotify), Interest::READABLE)? };
        Ok(Self(events))
    }

    /// Watches the folder at `path` from now on. Once more does no harm, and finds a folder that has
    /// been made anew.
    pub(super) fn add(&self, path: &Path) -> io::Result<()> {
        self.0.get_ref().0.add_watch(path, CHANGES)?;
        Ok(())
    }

    /// Waits until something has changed, and forgets what else has until now.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let read = |events: &Events| Ok(events.0.read_events()?);
        self.0.async_io(Interest::READABLE, read).await.map(drop)
    }
}
