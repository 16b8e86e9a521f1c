//! The number and duration of programs' runs, while the kernel's statistics are enabled.

use std::{io, os::fd::OwnedFd};

use super::{Attributes, bpf, bpf_fd, info};

const PROG_GET_NEXT_ID: u32 = 11;
const PROG_GET_FD_BY_ID: u32 = 13;
const ENABLE_STATS: u32 = 32;

/// The words of `struct bpf_prog_info` that are read.
const NAME: usize = 8;
const RUN_TIME: usize = 24;
const RUN_COUNT: usize = 25;

/// Enables the kernel's statistics until dropped.
pub struct Counting {
    _fd: OwnedFd,
}

impl Counting {
    /// Enables them.
    pub fn start() -> io::Result<Self> {
        // BPF_STATS_RUN_TIME
        let mut attributes = Number { number: 0 };
        let fd = bpf_fd(ENABLE_STATS, &mut attributes)?;
        Ok(Self { _fd: fd })
    }
}

/// The runs of a program while the statistics were enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program ID.
    pub id: u32,
    /// Its name, truncated by the kernel to 15 characters.
    pub name: String,
    /// The number of runs.
    pub count: u64,
    /// Their total duration.
    pub nanoseconds: u64,
}

/// The runs of every program whose name starts with `prefix`.
pub fn runs(prefix: &str) -> io::Result<Vec<Run>> {
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = next_id(id)? {
        id = next;
        if let Some(run) = run(id)?
            && run.name.starts_with(prefix)
        {
            found.push(run);
        }
    }
    Ok(found)
}

fn next_id(after: u32) -> io::Result<Option<u32>> {
    let mut attributes = Ids {
        id: after,
        next: 0,
        flags: 0,
    };
    match bpf(PROG_GET_NEXT_ID, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(|_| Some(attributes.next)),
    }
}

/// `None` if it is unloaded.
fn run(id: u32) -> io::Result<Option<Run>> {
    let mut attributes = Ids {
        id,
        next: 0,
        flags: 0,
    };
    let program = match bpf_fd(PROG_GET_FD_BY_ID, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let words = info(&program)?;
    Ok(Some(Run {
        id,
        name: text(&words[NAME..NAME + 2]),
        count: words[RUN_COUNT],
        nanoseconds: words[RUN_TIME],
    }))
}

fn text(words: &[u64]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[repr(C)]
struct Number {
    number: u32,
}

// SAFETY: no addresses.
unsafe impl Attributes for Number {}

#[repr(C)]
struct Ids {
    id: u32,
    next: u32,
    flags: u32,
}

// SAFETY: no addresses.
unsafe impl Attributes for Ids {}
