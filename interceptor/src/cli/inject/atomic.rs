//! Files that are replaced as a whole.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use tempfile::NamedTempFile;

/// Writes all files, or none: they are renamed to their names when all are written.
pub(super) fn write<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Result<()> {
    let mut written = Vec::new();
    for (path, text) in files {
        let problem = || format!("cannot write {}", path.display());
        written.push((path, temporary(path, text).with_context(problem)?));
    }
    for (path, file) in written {
        if let Some((file, target)) = file {
            let problem = || format!("cannot write {}", path.display());
            file.persist(target).with_context(problem)?;
        }
    }
    Ok(())
}

/// Why no file can be created beside the target: the error itself contains a random name.
fn without_temporary_name(kind: ErrorKind) -> anyhow::Error {
    match kind {
        ErrorKind::NotFound => anyhow!("its directory does not exist"),
        kind => anyhow!("no file can be created in its directory: {kind}"),
    }
}

/// A file beside `path` with its content and mode, and the path that it replaces. What is no
/// regular file, such as `/dev/stdout`, is written at once.
fn temporary(path: &Path, text: &str) -> Result<Option<(NamedTempFile, PathBuf)>> {
    // A symbolic link stays: its target is replaced.
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        target => target?,
    };
    let metadata = target.metadata().ok();
    if metadata
        .as_ref()
        .is_some_and(|metadata| !metadata.is_file())
    {
        fs::write(&target, text)?;
        return Ok(None);
    }
    let directory = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    let new_mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut file = builder
        .prefix(".interceptor-")
        .permissions(new_mode)
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(|error| without_temporary_name(error.kind()))?;
    file.write_all(text.as_bytes())?;
    if let Some(metadata) = metadata {
        file.as_file().set_permissions(metadata.permissions())?;
    }
    file.as_file().sync_all()?;
    Ok(Some((file, target)))
}
