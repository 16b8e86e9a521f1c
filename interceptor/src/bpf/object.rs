//! The BPF object that is part of this binary, and the programs in it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{Program, ProgramError},
};
use interceptor_ebpf::KernelOffsets;

use super::{log, offsets, pins::Pins};
use crate::digest;

/// The object, made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("INTERCEPTOR_EBPF_OBJECT"));

/// The object: its maps exist, its programs are loaded on demand, each once. It serves any number of
/// network namespaces.
pub struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Makes or opens the shared maps and gets ready to load programs.
    ///
    /// # Minimum kernel version
    ///
    /// 5.18, for `bpf_set_retval` in the connect hooks; see `interceptor check`.
    pub fn load(pins: &Pins) -> Result<Self> {
        let known = known_offsets(pins);
        let offsets = match known {
            Some(offsets) => offsets,
            None => offsets::read()?,
        };
        let ebpf = EbpfLoader::new()
            // There are no CO-RE relocations to make, and parsing the kernel's BTF takes its time.
            .btf(None)
            .override_global("OFFSETS", &offsets, true)
            .default_map_pin_directory(pins.maps())
            .map_pin_path(log::MAP, pins.maps().join(log::MAP))
            .map_pin_path(ASKED, pins.maps().join(ASKED))
            .load(OBJECT)
            .context("cannot load the BPF object")?;
        let mut object = Self { ebpf };
        if known.is_none() {
            object.remember(&offsets)?;
        }
        Ok(object)
    }

    fn remember(&mut self, offsets: &KernelOffsets) -> Result<()> {
        let map = self
            .ebpf
            .map_mut(OFFSETS)
            .context("the object has no map of offsets")?;
        let mut map: Array<_, KernelOffsets> = map.try_into()?;
        map.set(0, offsets, 0).context("cannot keep the offsets")
    }

    /// The object's maps and programs, as aya has them.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The program called `name`, loaded.
    pub fn program(&mut self, name: &str) -> Result<&mut Program> {
        let Some(program) = self.ebpf.program_mut(name) else {
            bail!("the BPF object has no program {name}");
        };
        if program.fd().is_err() {
            load(program).with_context(|| format!("the kernel refuses the program {name}"))?;
        }
        Ok(program)
    }

    /// A descriptor of the program called `name`, loaded.
    pub fn program_fd(&mut self, name: &str) -> Result<OwnedFd> {
        let fd = self.program(name)?.fd()?;
        fd.as_fd()
            .try_clone_to_owned()
            .context("cannot copy a program's descriptor")
    }

    /// A descriptor of the map called `name`, one of those that only programs use.
    pub(super) fn map_fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        match self.ebpf.map(name) {
            Some(Map::PerCpuArray(map) | Map::ProgramArray(map)) => Ok(map.fd().as_fd()),
            _ => bail!("the BPF object has no map {name} of the right kind"),
        }
    }

    /// What tells this build's programs from another's.
    #[must_use]
    pub fn build() -> String {
        format!("{:016x}", digest::of(OBJECT))
    }
}

/// The map of UDP sockets that ask DNS servers, whose kind cannot say itself that it is shared.
const ASKED: &str = "icept_asked";

/// The map that keeps the offsets, which take long to find, for as long as anything is attached.
const OFFSETS: &str = "icept_offsets";

fn known_offsets(pins: &Pins) -> Option<KernelOffsets> {
    let map = MapData::from_pin(pins.maps().join(OFFSETS)).ok()?;
    let map: Array<_, KernelOffsets> = Map::Array(map).try_into().ok()?;
    let offsets = map.get(&0, 0).ok()?;
    // Zeros: made by a command that was killed before it wrote them.
    (offsets.sock_socket != 0).then_some(offsets)
}

/// Loads a program, whatever its type. aya has no common call for that.
fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::Iter(program) => program.load("tcp", &Btf::from_sys_fs()?),
        Program::RawTracePoint(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
