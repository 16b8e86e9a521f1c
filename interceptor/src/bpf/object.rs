//! Loads the programs of the embedded BPF object.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{Program, ProgramError},
};
use interceptor_ebpf::KernelOffsets;

use super::{
    embedded::{self, OBJECT, OFFSETS},
    layout, link, offsets,
    pins::{self, Pins},
};

/// The object. Its programs are loaded and pinned on demand, once for all network namespaces.
pub struct Object {
    pins: Pins,
    /// Parsed only when a map or program must be created: that takes longer than the rest of an attach.
    ebpf: Option<Ebpf>,
}

impl Object {
    /// Creates no maps or programs yet.
    #[must_use]
    pub const fn new(pins: Pins) -> Self {
        Self { pins, ebpf: None }
    }

    /// Parses the object, and creates the maps that are not pinned.
    ///
    /// # Minimum kernel version
    ///
    /// 5.18, for `bpf_set_retval` in the connect hooks; see `interceptor check`.
    pub fn read(&mut self) -> Result<&mut Ebpf> {
        let ebpf = match self.ebpf.take() {
            Some(ebpf) => ebpf,
            None => read(&self.pins)?,
        };
        Ok(self.ebpf.insert(ebpf))
    }

    /// The pin of the program `name`, which is loaded if it does not exist.
    pub fn program(&mut self, name: &str) -> Result<PathBuf> {
        let pin = self.dir().join(name);
        if !pins::exists(&pin)? {
            self.load(&[name])?;
        }
        Ok(pin)
    }

    /// A descriptor of the program `name`, which is loaded if it is not pinned.
    pub fn program_fd(&mut self, name: &str) -> Result<OwnedFd> {
        let pin = self.program(name)?;
        link::open_program(&pin).with_context(|| format!("cannot open the pin {}", pin.display()))
    }

    /// Loads and pins those of the programs `names` that are not, in parallel: the verifier needs a
    /// quarter of a second for some of them, and uses one processor each.
    pub fn load(&mut self, names: &[&str]) -> Result<()> {
        let dir = self.dir();
        let mut missing = Vec::new();
        for &name in names {
            if !pins::exists(&dir.join(name))? {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        pins::create_dir(&dir)?;
        let programs = self.read()?.programs_mut();
        let wanted: Vec<_> = programs
            .filter(|(name, _)| missing.contains(name))
            .collect();
        ensure!(
            wanted.len() == missing.len(),
            "the BPF object lacks one of the programs {missing:?}"
        );
        thread::scope(|scope| {
            let load = |(name, program)| {
                let pin = dir.join(name);
                scope.spawn(move || load_and_pin(name, program, &pin))
            };
            let loading: Vec<_> = wanted.into_iter().map(load).collect();
            loading.into_iter().try_for_each(|loaded| {
                let panicked = |_| Err(anyhow!("the thread that loads a BPF program panicked"));
                loaded.join().unwrap_or_else(panicked)
            })
        })
    }

    fn dir(&self) -> PathBuf {
        self.pins.programs().join(embedded::build_id())
    }
}

fn read(pins: &Pins) -> Result<Ebpf> {
    let stored = stored_offsets(pins);
    let offsets = match stored {
        Some(offsets) => offsets,
        None => offsets::read()?,
    };
    let dir = pins.maps();
    let mut loader = EbpfLoader::new();
    for (map, pin) in layout::pins() {
        loader.map_pin_path(map, dir.join(pin));
    }
    let mut ebpf = loader
        // The object has no CO-RE relocations, and parsing the kernel's BTF is slow.
        .btf(None)
        .override_global("OFFSETS", &offsets, true)
        .load(OBJECT)
        .context("cannot load the BPF object")?;
    if stored.is_none() {
        store_offsets(&offsets, &mut ebpf)?;
    }
    Ok(ebpf)
}

fn store_offsets(offsets: &KernelOffsets, ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf
        .map_mut(OFFSETS)
        .context("the BPF object has no map of kernel offsets")?;
    let mut map: Array<_, KernelOffsets> = map.try_into()?;
    map.set(0, offsets, 0)
        .context("cannot store the kernel offsets")
}

fn stored_offsets(pins: &Pins) -> Option<KernelOffsets> {
    let map = MapData::from_pin(pins.maps().join(layout::pin(OFFSETS))).ok()?;
    let map: Array<_, KernelOffsets> = Map::Array(map).try_into().ok()?;
    let offsets = map.get(&0, 0).ok()?;
    // Zeros if the command that created the map was killed before it wrote them.
    (offsets.sock_socket != 0).then_some(offsets)
}

fn load_and_pin(name: &str, program: &mut Program, pin: &Path) -> Result<()> {
    load(name, program)?;
    link::pin_program(&program.fd()?.as_fd(), pin)
}

/// Loads a program of any type. aya has no common call for that.
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
    loaded.with_context(|| format!("failed to load the BPF program {name}"))
}
