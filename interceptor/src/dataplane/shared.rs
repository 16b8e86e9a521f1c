//! The object, maps and programs that all pods share, opened once.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    bpf::{
        embedded,
        fib::Fib,
        hooks::Hook,
        link,
        maps::Maps,
        object::Object,
        pins::{self, Pins},
        programs::SharedPrograms,
    },
    cgroup::Cgroup,
};

/// The object, the maps and the shared programs, and a cache of links to cgroups.
pub(super) struct SharedState {
    pub(super) object: Object,
    pub(super) maps: Maps,
    pub(super) programs: SharedPrograms,
    pub(super) fib: Fib,
    /// Distinguishes this build's programs from another's.
    build: &'static str,
    /// The directories in which these are pinned. Another command may have replaced them.
    pinned: [FileId; 2],
    /// By cgroup ID: the directory of links to the cgroup, and the hooks that are linked there.
    linked: HashMap<u64, (FileId, Vec<Hook>)>,
}

/// Distinguishes a directory from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl SharedState {
    /// Returns what is in `shared` if that is still pinned; otherwise opens or creates it.
    pub(super) fn current<'a>(shared: &'a mut Option<Self>, pins: &Pins) -> Result<&'a mut Self> {
        let kept = shared.take().filter(|shared| shared.is_current(pins));
        let current = match kept {
            Some(current) => current,
            None => Self::open(pins)?,
        };
        Ok(shared.insert(current))
    }

    fn open(pins: &Pins) -> Result<Self> {
        let shared = Self::prepare(pins)?;
        shared.programs.share(&shared.maps)?;
        Ok(shared)
    }

    /// Opens or creates it, beside what another build may have attached.
    pub(super) fn prepare(pins: &Pins) -> Result<Self> {
        pins.create()?;
        let mut object = Object::new(pins.clone());
        if !Maps::are_complete(&pins.maps())? {
            object.read()?;
        }
        let maps = Maps::open(&pins.maps())?;
        let programs = SharedPrograms::open(&mut object)?;
        let fib = Fib::open(&mut object, pins)?;
        let build = embedded::build_id();
        let pinned = pinned(pins, build).context("cannot read the pins")?;
        Ok(Self {
            object,
            maps,
            programs,
            fib,
            build,
            pinned,
            linked: HashMap::new(),
        })
    }

    /// Whether no other command has removed it or replaced its programs by another build's.
    pub(super) fn is_current(&self, pins: &Pins) -> bool {
        pinned(pins, self.build).is_ok_and(|now| now == self.pinned)
            && fs::read_dir(pins.programs()).is_ok_and(|builds| builds.count() == 1)
    }

    /// Attaches those programs of `hooks` to `cgroup` that are not. Returns whether there were any.
    pub(super) fn link(&mut self, pins: &Pins, cgroup: &Cgroup, hooks: &[Hook]) -> Result<bool> {
        let dir = pins.cgroup(cgroup.id());
        let is_known = |(known, linked): &(FileId, Vec<Hook>)| {
            FileId::of(&dir).is_ok_and(|now| now == *known)
                && hooks.iter().all(|hook| linked.contains(hook))
        };
        if self.linked.get(&cgroup.id()).is_some_and(is_known) {
            return Ok(false);
        }
        let programs = self.programs.at_cgroups().iter();
        let wanted: Vec<_> = programs.filter(|(hook, _)| hooks.contains(hook)).collect();
        // Conflicts of all programs are reported before the first one is attached.
        for (hook, _) in &wanted {
            link::check_no_exclusive_programs(*hook, cgroup.path(), cgroup.mount())?;
        }
        pins::create_dir(&dir)?;
        let mut is_new = false;
        for (hook, program) in wanted {
            is_new |= link::ensure(*hook, program, cgroup, &dir)
                .with_context(|| format!("at the cgroup {}", cgroup.path().display()))?;
        }
        let dir = FileId::of(&dir)?;
        self.linked.insert(cgroup.id(), (dir, hooks.to_vec()));
        Ok(is_new)
    }

    /// Clears the cache, because links to cgroups were removed.
    pub(super) fn clear_links(&mut self) {
        self.linked.clear();
    }
}

fn pinned(pins: &Pins, build: &str) -> io::Result<[FileId; 2]> {
    let programs = pins.programs().join(build);
    Ok([FileId::of(&pins.maps())?, FileId::of(&programs)?])
}
