//! Interceptor's pins.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{info, open};

/// The directory of this layout version.
#[must_use]
pub fn dir() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/interceptor/v1")
}

/// The pin of a map: its name alone, or with its layout's digest.
#[must_use]
pub fn map(name: &str) -> PathBuf {
    let dir = dir().join("maps");
    let is_of = |pin: &PathBuf| {
        let pin = pin.file_name().and_then(|pin| pin.to_str());
        pin.is_some_and(|pin| pin.split('-').next() == Some(name))
    };
    let pins = fs::read_dir(&dir).into_iter().flatten().flatten();
    let found = pins.map(|pin| pin.path()).find(is_of);
    found.unwrap_or_else(|| dir.join(name))
}

/// The directory of the network namespace with this cookie.
#[must_use]
pub fn of_netns(cookie: u64) -> PathBuf {
    dir().join("netns").join(cookie.to_string())
}

/// The links of the cgroup at `path` and of the network namespace with this cookie, with their link
/// and program IDs.
pub fn links(cgroup: &Path, cookie: u64) -> io::Result<Vec<String>> {
    let mut links = links_of_cgroup(fs::metadata(cgroup)?.ino())?;
    links.extend(links_in(&of_netns(cookie))?);
    Ok(links)
}

/// The links of the cgroup with this ID.
pub fn links_of_cgroup(id: u64) -> io::Result<Vec<String>> {
    links_in(&dir().join("cgroups").join(id.to_string()))
}

fn links_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut links = vec![dir.display().to_string()];
    for entry in entries {
        let path = entry?.path();
        // struct bpf_link_info: type, id, prog_id, ...
        let words = info(&open(&path)?)?;
        let (link, program) = (words[0] >> 32, words[1] & u64::from(u32::MAX));
        links.push(format!(
            "{}: link {link}, program {program}",
            path.display()
        ));
    }
    links.sort();
    Ok(links)
}

/// All entries below a directory; none if it does not exist. Directories may be deleted in the meantime.
pub fn entries_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(entries_below(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}
