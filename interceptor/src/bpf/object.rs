//! The BPF object that is part of this binary, and the programs in it.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::LazyLock,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{Program, ProgramError},
};
use interceptor_ebpf::KernelOffsets;

use super::{layout, offsets, pins::Pins};
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
        let folder = pins.maps();
        let mut loader = EbpfLoader::new();
        for (map, pin) in layout::pins() {
            loader.map_pin_path(map, folder.join(pin));
        }
        let ebpf = loader
            // There are no CO-RE relocations to make, and parsing the kernel's BTF takes its time.
            .btf(None)
            .override_global("OFFSETS", &offsets, true)
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
            load(name, program)?;
        }
        Ok(program)
    }

    /// Loads the programs called `names` side by side: the verifier takes a third of a second for
    /// some of them, and one processor each.
    pub fn load_together(&mut self, names: &[&str]) -> Result<()> {
        let programs = self.ebpf.programs_mut();
        let wanted =
            programs.filter(|(name, program)| names.contains(name) && program.fd().is_err());
        thread::scope(|scope| {
            let load = |(name, program)| scope.spawn(move || load(name, program));
            let loading: Vec<_> = wanted.map(load).collect();
            loading.into_iter().try_for_each(|loaded| {
                let panicked = |_| Err(anyhow!("loading a program came to an unexpected end"));
                loaded.join().unwrap_or_else(panicked)
            })
        })
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
    pub fn build() -> &'static str {
        // Every change asks for it, and the object is long.
        static BUILD: LazyLock<String> = LazyLock::new(|| format!("{:016x}", digest::of(OBJECT)));
        &BUILD
    }
}

/// The map that keeps the offsets, which take long to find, for as long as anything is attached.
const OFFSETS: &str = "icept_offsets";

fn known_offsets(pins: &Pins) -> Option<KernelOffsets> {
    let map = MapData::from_pin(pins.maps().join(layout::pin(OFFSETS))).ok()?;
    let map: Array<_, KernelOffsets> = Map::Array(map).try_into().ok()?;
    let offsets = map.get(&0, 0).ok()?;
    // Zeros: made by a command that was killed before it wrote them.
    (offsets.sock_socket != 0).then_some(offsets)
}

/// The maps that the object declares.
static MAPS: LazyLock<HashMap<String, aya_obj::Map>> = LazyLock::new(|| {
    aya_obj::Object::parse(OBJECT).map_or_else(|_| HashMap::new(), |object| object.maps)
});

/// How the map called `name` is defined: its type, the sizes of its keys and values, how many entries
/// it takes, and its flags.
pub(super) fn map_definition(name: &str) -> Option<[u32; 5]> {
    let map = MAPS.get(name)?;
    Some([
        map.map_type(),
        map.key_size(),
        map.value_size(),
        map.max_entries(),
        map.map_flags(),
    ])
}

/// Loads a program, whatever its type. aya has no common call for that.
fn load(name: &str, program: &mut Program) -> Result<()> {
    let loaded = match program {
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::Iter(program) => program.load("tcp", &Btf::from_sys_fs()?),
        Program::RawTracePoint(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.with_context(|| format!("the kernel refuses the program {name}"))
}

/// The maps of the object that are to be pinned.
#[cfg(test)]
pub(super) fn pinned_maps() -> Vec<&'static str> {
    /// Of one command alone. (The compiler's begin with a dot.)
    const PRIVATE: &str = "icept_fib_gen";
    let names = MAPS.keys().map(String::as_str);
    names
        .filter(|name| *name != PRIVATE && !name.starts_with('.'))
        .collect()
}
