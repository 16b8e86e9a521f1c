//! The programs that all cgroups share, and their replacement by those of another build.

use std::{fs, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result};
use tracing::info;

use super::{
    dispatcher,
    hooks::{CGROUP_HOOKS, Hook, LOOKUP},
    link,
    object::Object,
    pins::{self, Pins},
    watch,
};

/// Opens the shared programs where they are pinned. If those of this build are not, they are loaded,
/// and take the place of another build's wherever that is attached, each by one update of a link:
/// every connection meets the one or the other.
pub fn shared(object: &mut Object, pins: &Pins) -> Result<Vec<(Hook, OwnedFd)>> {
    let build = Object::build();
    let folder = pins.programs().join(&build);
    pins::create_folder(&folder)?;
    let programs = CGROUP_HOOKS
        .into_iter()
        .map(|hook| Ok((hook, open_or_load(object, hook, &folder)?)))
        .collect::<Result<Vec<_>>>()?;
    let lookup = open_or_load(object, LOOKUP, &folder)?;
    dispatcher::share(object, &lookup)?;
    let others = others(pins, &build)?;
    if !others.is_empty() {
        info!("replacing the programs of another build");
        replace(object, pins, &programs)?;
        for other in others {
            pins::remove_tree(&pins.programs().join(other))?;
        }
    }
    Ok(programs)
}

fn open_or_load(object: &mut Object, hook: Hook, folder: &Path) -> Result<OwnedFd> {
    let pin = folder.join(hook.program);
    if pin.exists() {
        return link::open_program(&pin)
            .with_context(|| format!("cannot open the pin {}", pin.display()));
    }
    let program = object.program_fd(hook.program)?;
    link::pin_program(&program, &pin)?;
    Ok(program)
}

/// The other builds whose programs are pinned.
fn others(pins: &Pins, build: &str) -> Result<Vec<String>> {
    let folder = pins.programs();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != build)
        .collect())
}

fn replace(object: &mut Object, pins: &Pins, programs: &[(Hook, OwnedFd)]) -> Result<()> {
    for cgroup in pins.cgroup_ids()? {
        for (hook, program) in programs {
            link::replace(*hook, program, &pins.cgroup(cgroup))?;
        }
    }
    for netns in pins.netns_cookies()? {
        let (dispatcher, folder) = (dispatcher::load(object, netns)?, pins.netns(netns));
        link::replace(LOOKUP, &dispatcher, &folder)?;
        watch::replace(object, &folder)?;
    }
    Ok(())
}
