//! Paths in the workspace, and of built files.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// The directory for files that the tasks build. It is fixed, because `interceptor/build.rs` reads it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Cargo's target directory for the host.
pub(crate) fn cargo_target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(target, |dir| root().join(dir))
}

/// The directory of one version of a tool that the tasks install.
pub(crate) fn tool(name: &str) -> PathBuf {
    target().join("tools").join(name)
}

/// The file of that name on the `PATH`, or in the directories for system administration, which the
/// `PATH` of an ordinary user lacks.
pub(crate) fn program(name: impl AsRef<Path>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name.as_ref()))
        .find(|file| file.is_file())
}

/// The `PATH` with a directory in front.
pub(crate) fn path_with(dir: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(dir.to_owned()).chain(env::split_paths(&path));
    Ok(env::join_paths(dirs)?)
}
