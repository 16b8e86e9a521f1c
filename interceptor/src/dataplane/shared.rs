//! What all pods share, opened once.

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

/// The object, the maps and the shared programs, and what is known of the cgroups.
pub(crate) struct SharedState {
    pub(crate) object: Object,
    pub(crate) maps: Maps,
    pub(crate) programs: SharedPrograms,
    pub(crate) fib: Fib,
    /// What tells this build's programs from another's.
    build: &'static str,
    /// Which folders these are pinned in. Another command may have put others in their place.
    pinned: [FileId; 2],
    /// The folders of the links to cgroups that are known to have all of them.
    linked: HashMap<u64, (FileId, Vec<Hook>)>,
}

/// What tells one folder from another that comes to bear its name.
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
    /// What is in `loaded`, if it is still what is pinned; else it is opened, or made.
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

    /// Opens or makes it, beside what another build may have in force.
    pub(crate) fn prepare(pins: &Pins) -> Result<Self> {
        pins.create()?;
        let mut object = Object::new(pins.clone());
        if !Maps::are_complete(&pins.maps()) {
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

    /// Whether nobody has removed it, or put another build's programs in its place.
    pub(super) fn is_current(&self, pins: &Pins) -> bool {
        pinned(pins, self.build).is_ok_and(|now| now == self.pinned)
            && fs::read_dir(pins.programs()).is_ok_and(|builds| builds.count() == 1)
    }

    /// Makes sure that the programs of `hooks` are attached at `cgroup`. Returns whether one was
    /// missing.
    pub(crate) fn link(&mut self, pins: &Pins, cgroup: &Cgroup, hooks: &[Hook]) -> Result<bool> {
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
        // Whoever is in the way of any is named before the first is attached.
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

    /// Forgets what is known of the cgroups, some of whose links have been taken away.
    pub(super) fn forget_links(&mut self) {
        self.linked.clear();
    }
}

fn pinned(pins: &Pins, build: &str) -> io::Result<[FileId; 2]> {
    let programs = pins.programs().join(build);
    Ok([FileId::of(&pins.maps())?, FileId::of(&programs)?])
}
