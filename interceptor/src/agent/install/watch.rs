//! Waits for changes in directories.

use std::{io, path::Path};

use nix::sys::inotify::AddWatchFlags;

use crate::agent::host::inotify::Inotify;

/// What can make a file another, or a directory.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A watch on directories.
pub(super) struct Watch(Inotify);

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        Inotify::new().map(Self)
    }

    /// Watches the directory at `path` from now on.
    pub(super) fn add(&self, path: &Path) -> io::Result<()> {
        self.0.add(path, CHANGES).map(drop)
    }

    /// Waits until something has changed, and forgets what else has until now.
    pub(super) async fn changed(&self) -> io::Result<()> {
        self.0.next().await.map(drop)
    }
}
