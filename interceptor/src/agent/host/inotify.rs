//! `inotify(7)` that can be waited for.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{self, AddWatchFlags, InitFlags, InotifyEvent, WatchDescriptor};
use tokio::io::{Interest, unix::AsyncFd};

/// What is watched.
pub(in crate::agent) struct Inotify(AsyncFd<Descriptor>);

/// What tokio asks for, which nix's type is not.
struct Descriptor(inotify::Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Inotify {
    /// Watches nothing yet.
    pub(in crate::agent) fn new() -> io::Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let descriptor = Descriptor(inotify::Inotify::init(flags)?);
        // SAFETY: the descriptor is the inotify's own, which lives within the `AsyncFd` and has no
        // other for as long.
        let inotify = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? };
        Ok(Self(inotify))
    }

    /// Watches what is at `path` from now on. Once more does no harm, and finds what has been made
    /// again there.
    pub(in crate::agent) fn add(
        &self,
        path: &Path,
        what: AddWatchFlags,
    ) -> io::Result<WatchDescriptor> {
        let Descriptor(inotify) = self.0.get_ref();
        Ok(inotify.add_watch(path, what)?)
    }

    /// Watches it no more.
    pub(in crate::agent) fn remove(&self, watched: WatchDescriptor) -> io::Result<()> {
        let Descriptor(inotify) = self.0.get_ref();
        Ok(inotify.rm_watch(watched)?)
    }

    /// Waits for what happens next, and answers with all that has.
    pub(in crate::agent) async fn next(&self) -> io::Result<Vec<InotifyEvent>> {
        let read = |Descriptor(inotify): &_| Ok(inotify.read_events()?);
        self.0.async_io(Interest::READABLE, read).await
    }
}
