//! `inotify(7)` for async code.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{self, AddWatchFlags, InitFlags, InotifyEvent, WatchDescriptor};
use tokio::io::{Interest, unix::AsyncFd};

/// An inotify instance.
pub(in crate::agent) struct Inotify(AsyncFd<Descriptor>);

/// Implements `AsRawFd` for tokio, which nix's type does not.
struct Descriptor(inotify::Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Inotify {
    /// Without watches.
    pub(in crate::agent) fn new() -> io::Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let descriptor = Descriptor(inotify::Inotify::init(flags)?);
        // SAFETY: the descriptor is the inotify's own, which the `AsyncFd` owns, and never changes.
        let inotify = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
        Ok(Self(inotify))
    }

    /// Watches the file at `path`. Idempotent; a repeated call also watches a new file at the same
    /// path.
    pub(in crate::agent) fn add(
        &self,
        path: &Path,
        what: AddWatchFlags,
    ) -> io::Result<WatchDescriptor> {
        let Descriptor(inotify) = self.0.get_ref();
        Ok(inotify.add_watch(path, what)?)
    }

    /// Removes a watch.
    pub(in crate::agent) fn remove(&self, watched: WatchDescriptor) -> io::Result<()> {
        let Descriptor(inotify) = self.0.get_ref();
        Ok(inotify.rm_watch(watched)?)
    }

    /// Waits for the next event, and returns all pending events.
    pub(in crate::agent) async fn next(&self) -> io::Result<Vec<InotifyEvent>> {
        let read = |Descriptor(inotify): &_| Ok(inotify.read_events()?);
        self.0.async_io(Interest::READABLE, read).await
    }
}
