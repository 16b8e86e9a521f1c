//! The plugin's binary: a copy of this process's binary.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{InstallError, atomic_file};

const OURSELVES: &str = "/proc/self/exe";
const EXECUTABLE: u32 = 0o755;

/// Copies this binary to `path`, unless the file is identical already.
pub(crate) fn install(path: &Path) -> Result<(), InstallError> {
    install_as(path).map_err(InstallError::io(path))
}

fn install_as(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let _lock = lock(dir)?;
    atomic_file::remove_unfinished(dir)?;
    if is_ours(path)? {
        return Ok(());
    }
    let mut new = atomic_file::unfinished(path)?;
    io::copy(&mut File::open(OURSELVES)?, &mut new)?;
    atomic_file::set_mode(&new, EXECUTABLE)?;
    atomic_file::finish(new, path)
}

/// Locks `dir` against other processes of Interceptor.
pub(crate) fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let dir = File::open(dir)?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn is_ours(path: &Path) -> io::Result<bool> {
    let existing = match File::open(path) {
        Ok(existing) => existing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let ours = File::open(OURSELVES)?;
    let executable = existing.metadata()?.permissions().mode() & 0o777 == EXECUTABLE;
    let has_same_size = existing.metadata()?.len() == ours.metadata()?.len();
    Ok(executable && has_same_size && is_same(existing, ours)?)
}

/// Compares in blocks, to limit the agent's memory.
fn is_same(one: File, other: File) -> io::Result<bool> {
    let [mut one, mut other] = [one, other].map(|file| BufReader::with_capacity(1 << 16, file));
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let count = a.len().min(b.len());
        if count == 0 {
            return Ok(a.len() == b.len());
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
        one.consume(count);
        other.consume(count);
    }
}
