//! Other vendors' programs: small ones that count their runs, and may do one more thing.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{Attributes, address, bpf, bpf_fd, info, maps::Map, number};

/// The attach type of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    /// `connect(2)` by IPv4.
    Connect4,
    /// `connect(2)` by IPv6.
    Connect6,
    /// `getpeername(2)` by IPv4.
    PeerName4,
    /// `getsockname(2)` by IPv4.
    SocketName4,
    /// `getsockopt(2)`
    GetSockOpt,
    /// `socket(2)`
    SocketCreate,
    /// The events of TCP connections.
    SockOps,
    /// The selection of a socket for an incoming packet.
    SkLookup,
    /// The packets that an interface receives.
    Ingress,
    /// The packets that an interface sends.
    Egress,
    /// The messages that the sockets of a sockmap send.
    Sent,
}

impl AttachType {
    /// The attach types of cgroups.
    pub const IN_CGROUPS: [Self; 7] = [
        Self::Connect4,
        Self::Connect6,
        Self::PeerName4,
        Self::SocketName4,
        Self::GetSockOpt,
        Self::SocketCreate,
        Self::SockOps,
    ];

    /// `BPF_PROG_TYPE_…` and `BPF_…` attach type.
    pub(super) const fn types(self) -> (u32, u32) {
        match self {
            Self::Connect4 => (18, 10),
            Self::Connect6 => (18, 11),
            Self::PeerName4 => (18, 29),
            Self::SocketName4 => (18, 31),
            Self::GetSockOpt => (25, 21),
            Self::SocketCreate => (9, 2),
            Self::SockOps => (13, 3),
            Self::SkLookup => (30, 36),
            Self::Ingress => (3, 46),
            Self::Egress => (3, 47),
            Self::Sent => (16, 7),
        }
    }

    /// The return code that lets the call or packet continue.
    const fn continue_code(self) -> i32 {
        match self {
            // TCX_NEXT
            Self::Ingress | Self::Egress => -1,
            _ => 1,
        }
    }
}

/// The effect of a program, besides counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// No effect.
    CountOnly,
    /// Replaces one IPv4 destination by another.
    Rewrite {
        /// The destination of the app's call.
        from: [u8; 4],
        /// The new destination.
        to: [u8; 4],
    },
    /// `bpf_sock_ops_cb_flags_set` with these flags, which replaces all others.
    SetCallbackFlags(i32),
    /// `bpf_skb_vlan_push`: tags the packet with a priority and VLAN 0.
    TagPriority,
}

/// The mode of attaching a program to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Without a flag: no other program can be attached.
    Exclusive,
    /// `BPF_F_ALLOW_OVERRIDE`: a program in a descendant cgroup replaces it there.
    Overridable,
    /// `BPF_F_ALLOW_MULTI`: in addition to others.
    Multiple,
}

/// A loaded program. After [`Program::attach`], the cgroup keeps it until the cgroup is deleted,
/// even if this is dropped.
pub struct Program {
    fd: OwnedFd,
    counter: Map,
    attach_type: AttachType,
}

/// An attached program; detached when dropped.
pub struct Link {
    _fd: OwnedFd,
}

impl Program {
    /// Loads one, with a name that `bpftool` shows.
    pub fn load(name: &str, attach_type: AttachType, action: Action) -> io::Result<Self> {
        let counter = Map::counter()?;
        let fd = load(
            name,
            attach_type,
            code(&counter, action, attach_type.continue_code()),
        )?;
        Ok(Self {
            fd,
            counter,
            attach_type,
        })
    }

    /// Its program ID.
    pub fn id(&self) -> io::Result<u64> {
        // struct bpf_prog_info: type, id, ...
        Ok(info(&self.fd)?[0] >> 32)
    }

    /// The number of its runs.
    pub fn runs(&self) -> io::Result<u64> {
        let value = self.counter.get(&[0; 4])?.unwrap_or_default();
        let bytes = value.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        Ok(u64::from_ne_bytes(*bytes))
    }

    /// Attaches it to a cgroup until the cgroup is deleted.
    pub fn attach(&self, cgroup: &Path, mode: Mode) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        let mut attributes = Attach {
            target: number(&cgroup),
            program: number(&self.fd),
            at: self.attach_type.types().1,
            flags: match mode {
                Mode::Exclusive => 0,
                Mode::Overridable => 1,
                Mode::Multiple => 2,
            },
        };
        bpf(PROG_ATTACH, &mut attributes).map(drop)
    }

    /// Detaches it from a cgroup.
    pub fn detach(&self, cgroup: &Path) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        let mut attributes = Attach {
            target: number(&cgroup),
            program: number(&self.fd),
            at: self.attach_type.types().1,
            flags: 0,
        };
        bpf(PROG_DETACH, &mut attributes).map(drop)
    }

    /// Attaches it to a cgroup or a network namespace by a link.
    pub fn link(&self, target: &impl AsFd) -> io::Result<Link> {
        self.link_to(number(target))
    }

    /// Attaches it to an interface of the calling thread's network namespace, by its index.
    pub fn link_to_interface(&self, index: u32) -> io::Result<Link> {
        self.link_to(index)
    }

    fn link_to(&self, target: u32) -> io::Result<Link> {
        let mut attributes = CreateLink {
            program: number(&self.fd),
            target,
            attach_type: self.attach_type.types().1,
            flags: 0,
        };
        bpf_fd(LINK_CREATE, &mut attributes).map(|fd| Link { _fd: fd })
    }
}

/// Loads a program with these instructions.
pub(super) fn load(name: &str, attach_type: AttachType, mut code: Vec<u64>) -> io::Result<OwnedFd> {
    let mut license = *b"GPL\0";
    let (kind, attach_type) = attach_type.types();
    let mut attributes = Load {
        kind,
        instructions: u32::try_from(code.len()).map_err(io::Error::other)?,
        code: address(&mut code),
        license: address(&mut license),
        name: padded(name),
        attach_type,
        ..Load::default()
    };
    bpf_fd(PROG_LOAD, &mut attributes)
}

/// Counts, acts and returns.
fn code(counter: &Map, action: Action, return_code: i32) -> Vec<u64> {
    let (r0, r1, r2, r3, r6) = (0, 1, 2, 3, 6);
    // r6 = r1 (the context)
    let mut code = vec![instruction(0xbf, r6, r1, 0)];
    // r1 = the address of the counter: BPF_PSEUDO_MAP_VALUE, in two words
    code.push(instruction(0x18, r1, 2, number(counter.fd()).cast_signed()));
    code.push(0);
    // r2 = 1; lock *(u64 *)(r1 + 0) += r2
    code.push(instruction(0xb7, r2, 0, 1));
    code.push(instruction(0xdb, r1, r2, 0));
    if let Action::SetCallbackFlags(flags) = action {
        // r1 = r6; r2 = flags; call bpf_sock_ops_cb_flags_set
        code.push(instruction(0xbf, r1, r6, 0));
        code.push(instruction(0xb7, r2, 0, flags));
        code.push(instruction(0x85, 0, 0, 59));
    }
    if action == Action::TagPriority {
        // r1 = r6; r2 = ETH_P_8021Q; r3 = priority 3, VLAN 0; call bpf_skb_vlan_push
        let protocol = u16::from_ne_bytes(0x8100_u16.to_be_bytes());
        code.push(instruction(0xbf, r1, r6, 0));
        code.push(instruction(0xb7, r2, 0, protocol.into()));
        code.push(instruction(0xb7, r3, 0, 3 << 13));
        code.push(instruction(0x85, 0, 0, 18));
    }
    if let Action::Rewrite { from, to } = action {
        // r2 = context.user_ip4; if r2 == from { context.user_ip4 = to }
        const USER_IP4: i16 = 4;
        code.push(at(instruction(0x61, r2, r6, 0), USER_IP4));
        code.push(at(instruction(0x56, r2, 0, i32::from_ne_bytes(from)), 2));
        code.push(instruction(0xb4, r2, 0, i32::from_ne_bytes(to)));
        code.push(at(instruction(0x63, r6, r2, 0), USER_IP4));
    }
    // r0 = return_code; exit
    code.push(instruction(0xb7, r0, 0, return_code));
    code.push(instruction(0x95, 0, 0, 0));
    code
}

/// `struct bpf_insn` with no offset.
pub(super) fn instruction(operation: u8, destination: u8, source: u8, immediate: i32) -> u64 {
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([operation, source << 4 | destination, 0, 0, a, b, c, d])
}

/// The same with an offset.
fn at(instruction: u64, offset: i16) -> u64 {
    let mut bytes = instruction.to_ne_bytes();
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn padded(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (byte, letter) in padded.iter_mut().take(15).zip(name.bytes()) {
        *byte = letter;
    }
    padded
}

const PROG_LOAD: u32 = 5;
pub(super) const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const LINK_CREATE: u32 = 28;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

// SAFETY: created in this file only, with the true number of instructions and a license that ends
// with a zero byte.
unsafe impl Attributes for Load {}

#[repr(C)]
pub(super) struct Attach {
    pub(super) target: u32,
    pub(super) program: u32,
    pub(super) at: u32,
    pub(super) flags: u32,
}

// SAFETY: no addresses.
unsafe impl Attributes for Attach {}

#[repr(C)]
struct CreateLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: no addresses.
unsafe impl Attributes for CreateLink {}
