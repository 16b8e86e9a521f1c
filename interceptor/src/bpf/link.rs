//! Links, which keep programs attached while they are pinned.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::loaded_programs;
use aya_obj::generated::bpf_attach_type;
use serde::Serialize;

use super::{
    hooks::{self, Hook},
    pins, sys,
};

/// Attaches `program` to `target` and pins the link in `dir`, unless it exists. A link whose target was
/// deleted is replaced. Returns whether the link is new.
pub(crate) fn ensure(
    hook: Hook,
    program: &impl AsFd,
    target: &impl AsFd,
    dir: &Path,
) -> Result<bool> {
    let pin = dir.join(hook.program);
    if is_alive(hook, &pin)? {
        return Ok(false);
    }
    remove_pin(&pin)?;
    let link = sys::link_create(program, target, hook.attach_type as u32)
        .with_context(|| format!("cannot attach {}", hook.program))?;
    sys::obj_pin(&link, &pin).with_context(|| {
        format!(
            "cannot pin the link of {} at {}",
            hook.program,
            pin.display()
        )
    })?;
    Ok(true)
}

/// Replaces the program of the link that is pinned in `dir`, if there is one.
pub(crate) fn replace(hook: Hook, program: &impl AsFd, dir: &Path) -> Result<()> {
    replace_at(hook, program, &dir.join(hook.program))
}

/// Replaces the program of the link that is pinned at `pin`, if there is one.
pub(crate) fn replace_at(hook: Hook, program: &impl AsFd, pin: &Path) -> Result<()> {
    if !is_alive(hook, pin)? {
        return Ok(());
    }
    match sys::link_update(&open(pin)?, program) {
        // Its target was deleted in the meantime.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => {
            result.with_context(|| format!("cannot replace the program of {}", pin.display()))
        }
    }
}

/// Whether a link is pinned and its target exists.
pub(crate) fn is_alive(hook: Hook, pin: &Path) -> Result<bool> {
    if !pins::exists(pin)? {
        return Ok(false);
    }
    let target = match hook.attach_type {
        bpf_attach_type::BPF_SK_LOOKUP => netns_inode(pin)?,
        bpf_attach_type::BPF_TCX_INGRESS | bpf_attach_type::BPF_TCX_EGRESS => {
            let index = sys::link_interface(&open(pin)?)
                .with_context(|| format!("cannot query what {} is attached to", pin.display()))?;
            index.into()
        }
        _ => sys::link_cgroup_id(&open(pin)?)
            .with_context(|| format!("cannot query what {} is attached to", pin.display()))?,
    };
    Ok(target != 0)
}

/// Removes a pin, if it exists, and with it the link.
pub(crate) fn remove_pin(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", pin.display()))
        }
        _ => Ok(()),
    }
}

fn open(pin: &Path) -> Result<OwnedFd> {
    sys::obj_get(pin).with_context(|| format!("cannot open the pin {}", pin.display()))
}

/// The inode of the network namespace that the link pinned at `pin` is attached to; 0 if the namespace
/// was deleted.
pub(crate) fn netns_inode(pin: &Path) -> Result<u64> {
    sys::link_netns_inode(&open(pin)?)
        .map(u64::from)
        .with_context(|| format!("cannot query what {} is attached to", pin.display()))
}

/// The ID of the program that the link pinned at `pin` attaches.
pub(crate) fn program_id(pin: &Path) -> Result<u32> {
    sys::link_program_id(&open(pin)?)
        .with_context(|| format!("cannot query the program of {}", pin.display()))
}

/// What a pinned link attaches.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkStatus {
    pin: PathBuf,
    program_id: u32,
    /// Whether the cgroup, network namespace or interface exists.
    target_exists: bool,
}

/// The link pinned at `pin`, whose name starts with that of its program.
pub(crate) fn status(pin: &Path) -> Result<LinkStatus> {
    let name = pin.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let program = name.split_once('-').map_or(name, |(program, _)| program);
    let hook = hooks::find(program)
        .with_context(|| format!("the pin {} is of an unknown program", pin.display()))?;
    Ok(LinkStatus {
        pin: pin.to_owned(),
        program_id: program_id(pin)?,
        target_exists: is_alive(hook, pin)?,
    })
}

pub(crate) fn open_program(pin: &Path) -> io::Result<OwnedFd> {
    sys::obj_get(pin)
}

pub(crate) fn pin_program(program: &impl AsFd, pin: &Path) -> Result<()> {
    sys::obj_pin(program, pin)
        .with_context(|| format!("cannot pin the program at {}", pin.display()))
}

/// Fails if programs of other owners conflict with ours: programs at `cgroup` and its ancestors up to
/// `root` that are attached to `hook` without `BPF_F_ALLOW_MULTI`. Without any flag, the kernel refuses
/// programs below them; with `BPF_F_ALLOW_OVERRIDE`, they would silently stop to run for the sockets
/// that ours handle (`compute_effective_progs`).
pub(crate) fn check_no_exclusive_programs(hook: Hook, cgroup: &Path, root: &Path) -> Result<()> {
    let mut exclusive = Vec::new();
    for path in cgroup.ancestors().take_while(|path| path.starts_with(root)) {
        let found = exclusive_programs_at(hook, path);
        exclusive.extend(found.with_context(|| {
            format!(
                "cannot list the programs that are attached at {}",
                path.display()
            )
        })?);
    }
    if exclusive.is_empty() {
        return Ok(());
    }
    bail!(
        "{} is attached to {:?} without BPF_F_ALLOW_MULTI, which excludes other programs \
         at and below its cgroup: detach it (`bpftool cgroup detach`), or have its owner attach it \
         with that flag",
        exclusive.join(", "),
        hook.attach_type
    )
}

fn exclusive_programs_at(hook: Hook, cgroup: &Path) -> io::Result<Vec<String>> {
    let ids = sys::exclusive_programs(&File::open(cgroup)?, hook.attach_type as u32)?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let name = program_name(id).unwrap_or_default();
            format!("program {id} ({name}) at {}", cgroup.display())
        })
        .collect())
}

fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}
