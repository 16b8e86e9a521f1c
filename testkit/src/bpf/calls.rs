//! A program between the dispatcher of a network namespace and the program that it calls.

use std::{fs, io, os::fd::OwnedFd, path::PathBuf};

use super::{
    maps::Map,
    number, open, pins,
    programs::{AttachType, instruction, load},
};

/// The number of words of a call.
pub const WORDS: usize = 4;

/// The distance of another lookup's context: it is on another kernel stack.
const ELSEWHERE: i32 = 0x4000;

/// A program that the dispatcher of one network namespace calls instead of the shared one. It
/// modifies the slot as the call of another lookup does, and then calls the shared program.
pub struct Between {
    shared: Map,
    _fd: OwnedFd,
    _next: Map,
}

impl Between {
    /// Installs one, in the network namespace with this cookie, that overwrites these words of each
    /// call with those of another lookup.
    pub fn overwriting(words: &[usize], cookie: u64) -> io::Result<Self> {
        let calls = Map::at(&pins::map("icept_calls"))?;
        let next = Map::of_programs()?;
        next.set(&0_u32.to_ne_bytes(), &fd_bytes(&open(&lookup()?)?))?;
        let fd = load(
            "test_between",
            AttachType::SkLookup,
            code(&calls, &next, words, cookie),
        )?;
        let shared = Map::at(&pins::map("icept_shared"))?;
        shared.set(&0_u32.to_ne_bytes(), &fd_bytes(&fd))?;
        Ok(Self {
            shared,
            _fd: fd,
            _next: next,
        })
    }

    /// Removes it without a replacement.
    pub fn leave_none(self) -> io::Result<()> {
        self.shared.remove(&0_u32.to_ne_bytes())
    }
}

/// The pin of the shared program.
fn lookup() -> io::Result<PathBuf> {
    let mut builds = fs::read_dir(pins::dir().join("programs"))?;
    let build = builds.next().ok_or(io::ErrorKind::NotFound)??;
    Ok(build.path().join("icept_lookup"))
}

fn fd_bytes(fd: &OwnedFd) -> [u8; 4] {
    number(fd).to_ne_bytes()
}

fn code(calls: &Map, next: &Map, words: &[usize], cookie: u64) -> Vec<u64> {
    let (r0, r1, r2, r3, context, stack) = (0, 1, 2, 3, 6, 10);
    let fd = |map: &Map| number(map.fd()).cast_signed();
    let at = |offset: i16, word: u64| word | u64::from(offset.cast_unsigned()) << 16;
    let mut code = vec![
        instruction(0xbf, context, r1, 0),
        // *(u32 *)(stack - 4) = 0; r0 = bpf_map_lookup_elem(calls, stack - 4)
        at(-4, instruction(0x62, stack, 0, 0)),
        instruction(0xbf, r2, stack, 0),
        instruction(0x07, r2, 0, -4),
        instruction(0x18, r1, 1, fd(calls)),
        0,
        instruction(0x85, 0, 0, 1),
        // if r0 != 0 go on; exit
        at(1, instruction(0x55, r0, 0, 0)),
        instruction(0x95, 0, 0, 0),
    ];
    for word in words {
        let offset = i16::try_from(8 * word).expect("a small offset");
        let part = cookie >> (16 * word) & 0xffff;
        code.extend([
            // r1 = *(u64 *)(r0 + offset): the caller's number above, a part of the cookie below
            at(offset, instruction(0x79, r1, r0, 0)),
            instruction(0x77, r1, 0, 16),
            instruction(0x07, r1, 0, ELSEWHERE),
            instruction(0x67, r1, 0, 16),
            instruction(0x47, r1, 0, i32::try_from(part).expect("16 bits")),
            at(offset, instruction(0x7b, r0, r1, 0)),
        ]);
    }
    code.extend([
        // bpf_tail_call(context, next, 0); r0 = SK_PASS; exit
        instruction(0xbf, r1, context, 0),
        instruction(0x18, r2, 1, fd(next)),
        0,
        instruction(0xb7, r3, 0, 0),
        instruction(0x85, 0, 0, 12),
        instruction(0xb7, r0, 0, 1),
        instruction(0x95, 0, 0, 0),
    ]);
    code
}
