//! Waits for changes in directories.

use std::{io, path::Path};

use nix::sys::inotify::AddWatchFlags;

use crate::agent::host::inotify::Inotify;

/// All events that can change a file, or the directory itself.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A watch of directories.
pub(super) struct Watch(Inotify);

impl Watch {
    /// Without watches.
    pub(super) fn new() -> io::Result<Self> {
        Inotify::new().map(Self)
    }

    /// Adds the directory at `path`.
    pub(super) fn add(&self, path: &Path) -> io::Result<()> {
        self.0.add(path, CHANGES).map(drop)
    }

    /// Waits for a change, and discards all pending events.
    pub(super) async fn changed(&self) -> io::Result<()> {
        self.0.next().await.map(drop)
    }
}
