//! Files that are there wholly or not at all.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// What the names of unfinished files begin with. (Runtimes read no file of such a name: its ending
/// is at random.)
const UNFINISHED: &str = ".tmp.interceptor-cni.";

/// A file's permissions where there was none before: as others' configurations have them.
const READABLE: u32 = 0o644;

/// Writes `text` to the file at `path`, in one step. What it replaces, leaves its mode and owner.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    // A link stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut new = unfinished(&path)?;
    new.write_all(text.as_bytes())?;
    match fs::metadata(&path) {
        Ok(old) => {
            give(new.as_file(), &old)?;
            new.as_file().set_permissions(old.permissions())?;
        }
        Err(_) => set_mode(&new, READABLE)?,
    }
    finish(new, &path)
}

/// Gives `file` to the owner of `old`, as far as that is allowed: it takes `CAP_CHOWN`, which the
/// agent has not. A runtime reads the file as root, whoever owns it.
fn give(file: &File, old: &Metadata) -> io::Result<()> {
    match fchown(file, Some(old.uid()), Some(old.gid())) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// A file beside `path`, to take its place. Gone when dropped.
pub(crate) fn unfinished(path: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(UNFINISHED).tempfile_in(parent(path))
}

pub(crate) fn set_mode(file: &NamedTempFile, mode: u32) -> io::Result<()> {
    let permissions = Permissions::from_mode(mode);
    file.as_file().set_permissions(permissions)
}

/// Puts it in the place of `path`. Its content is on the disk before its name is: a node that loses
/// power must not find an empty configuration.
pub(crate) fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(path)
}

/// Makes sure that a change of names beside `path` is on the disk.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// Removes a file. Is it gone by our doing?
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what a process that was killed has not finished in `directory`. Others must not be writing
/// there: the caller holds the directory's lock.
pub(crate) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for path in list(dir)? {
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with(UNFINISHED) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The directory's files, in the order in which runtimes read them.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(Path::new("."));
    if parent.as_os_str().is_empty() {
        return Path::new(".");
    }
    parent
}
