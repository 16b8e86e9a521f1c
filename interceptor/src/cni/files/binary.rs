//! The plugin's binary: this one, under another name.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{NotInstalled, atomic_file};

const OURSELVES: &str = "/proc/self/exe";
const EXECUTABLE: u32 = 0o755;

/// Copies this binary to `path`, unless it is there.
pub(crate) fn install(path: &Path) -> Result<(), NotInstalled> {
    install_as(path).map_err(NotInstalled::io(path))
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

/// Keeps others of us out of `directory`.
pub(crate) fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let dir = File::open(dir)?;
    Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn is_ours(path: &Path) -> io::Result<bool> {
    let there = match File::open(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let ours = File::open(OURSELVES)?;
    let executable = there.metadata()?.permissions().mode() & 0o777 == EXECUTABLE;
    let as_long = there.metadata()?.len() == ours.metadata()?.len();
    Ok(executable && as_long && same(there, ours)?)
}

/// Piece by piece: the agent is to stay small.
fn same(one: File, other: File) -> io::Result<bool> {
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
