//! The kernel's statistics of programs: their runs, while these are counted, and their verification.

use std::{io, os::fd::OwnedFd};

use super::{Attributes, bpf, bpf_fd, info};

const PROG_GET_NEXT_ID: u32 = 11;
const PROG_GET_FD_BY_ID: u32 = 13;
const ENABLE_STATS: u32 = 32;

/// The words of `struct bpf_prog_info` that are read.
const NAME: usize = 8;
const RUN_TIME: usize = 24;
const RUN_COUNT: usize = 25;
const VERIFIED: usize = 27;

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
    /// The instructions that the verifier processed; 0 before Linux 5.16.
    pub verified_instructions: u32,
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
        verified_instructions: first_half(words[VERIFIED]),
    }))
}

/// The first of two numbers of 32 bits.
fn first_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
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
