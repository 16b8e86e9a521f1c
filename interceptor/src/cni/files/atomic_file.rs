//! Atomic replacement of files.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// The prefix of temporary files' names. (Runtimes ignore these files, as their extensions are random.)
const UNFINISHED: &str = ".tmp.interceptor-cni.";

/// The mode of a new file, as of other configurations.
const READABLE: u32 = 0o644;

/// Replaces the file at `path` atomically. A replaced file's mode and owner are kept.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link is kept.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut new = unfinished(&path)?;
    new.write_all(text.as_bytes())?;
    match fs::metadata(&path) {
        Ok(old) => {
            copy_owner(new.as_file(), &old)?;
            new.as_file().set_permissions(old.permissions())?;
        }
        Err(_) => set_mode(&new, READABLE)?,
    }
    finish(new, &path)
}

/// Sets the owner of `file` to that of `old`, if permitted: this requires `CAP_CHOWN`, which the agent
/// does not have. Runtimes read the file as root in any case.
fn copy_owner(file: &File, old: &Metadata) -> io::Result<()> {
    match fchown(file, Some(old.uid()), Some(old.gid())) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// A temporary file beside `path`. Deleted when dropped.
pub(crate) fn unfinished(path: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(UNFINISHED).tempfile_in(parent(path))
}

pub(crate) fn set_mode(file: &NamedTempFile, mode: u32) -> io::Result<()> {
    let permissions = Permissions::from_mode(mode);
    file.as_file().set_permissions(permissions)
}

/// Renames the temporary file to `path`. The content is synced before the name: a node that loses power
/// must not find an empty configuration.
pub(crate) fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(path)
}

/// Syncs the directory of `path`, and so renames in it.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// Removes a file. Returns false if the file did not exist.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes temporary files that a killed process left in `dir`. The caller must hold the directory's
/// lock, so that no other process is writing there.
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
