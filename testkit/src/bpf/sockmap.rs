//! Socket acceleration, as other dataplanes have it: the bytes of one end of a connection are put into
//! the receive queue of the other, bypassing TCP.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    bpf,
    maps::Map,
    number,
    programs::{Attach, AttachType, PROG_ATTACH, instruction, load},
};

/// The only key of each map.
const KEY: [u8; 4] = [0; 4];

/// Two connected sockets of this machine whose bytes bypass TCP; until this is dropped.
pub struct Accelerated {
    _ends: [End; 2],
}

/// A map with one socket, and the program for its messages.
struct End {
    map: Map,
    program: Option<OwnedFd>,
}

impl Accelerated {
    /// Accelerates a connection in both directions.
    pub fn new(one: &impl AsFd, other: &impl AsFd) -> io::Result<Self> {
        let mut ends = [End::new()?, End::new()?];
        let [first, second] = &mut ends;
        first.redirect_to(&second.map)?;
        second.redirect_to(&first.map)?;
        // A socket gets the program when it is added to the map.
        first.map.set(&KEY, &number(one).to_ne_bytes())?;
        second.map.set(&KEY, &number(other).to_ne_bytes())?;
        Ok(Self { _ends: ends })
    }
}

impl End {
    fn new() -> io::Result<Self> {
        let map = Map::of_sockets()?;
        Ok(Self { map, program: None })
    }

    fn redirect_to(&mut self, other: &Map) -> io::Result<()> {
        let program = load("test_accelerate", AttachType::Sent, code(other))?;
        let mut attributes = Attach {
            target: number(self.map.fd()),
            program: number(&program),
            at: AttachType::Sent.types().1,
            flags: 0,
        };
        bpf(PROG_ATTACH, &mut attributes)?;
        self.program = Some(program);
        Ok(())
    }
}

/// `return bpf_msg_redirect_map(msg, other, 0, BPF_F_INGRESS)`
fn code(other: &Map) -> Vec<u64> {
    let (r2, r3, r4) = (2, 3, 4);
    vec![
        // BPF_PSEUDO_MAP_FD, in two words
        instruction(0x18, r2, 1, number(other.fd()).cast_signed()),
        0,
        instruction(0xb7, r3, 0, 0),
        instruction(0xb7, r4, 0, 1),
        instruction(0x85, 0, 0, 60),
        instruction(0x95, 0, 0, 0),
    ]
}
