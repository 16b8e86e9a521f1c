//! The programs at a pod's interfaces, which evaluate forwarded connections.
//!
//! If the kernel has links for them (`tcx`, Linux 6.6), these are pinned like all others. Otherwise they
//! are filters of the `clsact` qdisc, which exist without a pin; an empty directory among the pins
//! marks the interface.

use std::{io, mem::ManuallyDrop, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use aya_obj::generated::bpf_attach_type;
use nix::errno::Errno;

use super::{
    hooks::{Hook, INTERFACE_HOOKS},
    link,
    object::Object,
    pins, sys,
};
use crate::netns::{
    clsact,
    interfaces::{self, PodInterface},
    netlink,
};

/// Before all other filters of an interface.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x1ce);

/// Marks an interface that has our filters.
const FILTERS: &str = "filters";
/// Marks an interface whose qdisc is ours.
const QDISC: &str = "clsact";

/// Attaches the programs to an interface of the calling thread's network namespace, unless they are.
/// The pins are in `dir`.
pub(crate) fn ensure(object: &mut Object, interface: &PodInterface, dir: &Path) -> Result<()> {
    INTERFACE_HOOKS.into_iter().try_for_each(|hook| {
        ensure_hook(object, hook, interface, dir)
            .with_context(|| format!("cannot attach {} at {}", hook.program, interface.name))
    })
}

fn ensure_hook(
    object: &mut Object,
    hook: Hook,
    interface: &PodInterface,
    dir: &Path,
) -> Result<()> {
    let pin = dir.join(pin(hook.program, interface.index));
    if link::is_alive(hook, &pin)? {
        return Ok(());
    }
    link::remove_pin(&pin)?;
    let program = object.program_fd(hook.program)?;
    match sys::link_create_at_interface(&program, interface.index, hook.attach_type as u32) {
        Ok(link) => Ok(sys::obj_pin(&link, &pin)?),
        // A kernel without such links.
        Err(error) if is(&error, Errno::EINVAL) => ensure_filter(object, hook, interface, dir),
        Err(error) => Err(error.into()),
    }
}

/// Whether `interface`, of the calling thread's network namespace, has both programs.
pub(crate) fn are_attached(interface: &PodInterface, dir: &Path) -> Result<bool> {
    if dir.join(pin(FILTERS, interface.index)).exists() {
        return clsact::has_filters(interface, PRIORITY, HANDLE.into());
    }
    for hook in INTERFACE_HOOKS {
        if !link::is_alive(hook, &dir.join(pin(hook.program, interface.index)))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Detaches the programs from all interfaces of the calling thread's network namespace except those in
/// `watched`.
pub(crate) fn retain(
    interfaces: &[PodInterface],
    watched: &[PodInterface],
    dir: &Path,
) -> Result<()> {
    for (name, index) in marked(dir)? {
        if watched.iter().any(|interface| interface.index == index) {
            continue;
        }
        // The filters of a deleted interface are deleted too.
        let interface = interfaces.iter().find(|interface| interface.index == index);
        match (name.as_str(), interface) {
            (FILTERS, Some(interface)) => remove_filters(interface)?,
            (QDISC, Some(interface)) => clsact::remove(interface)?,
            _ => {}
        }
        let pin = dir.join(pin(&name, index));
        if pin.is_dir() {
            pins::remove_tree(&pin)?;
        } else {
            link::remove_pin(&pin)?;
        }
    }
    Ok(())
}

/// Replaces the programs of all pinned links by this build's.
pub(crate) fn replace(object: &mut Object, dir: &Path) -> Result<()> {
    for (name, index) in marked(dir)? {
        if let Some(hook) = INTERFACE_HOOKS
            .into_iter()
            .find(|hook| hook.program == name)
        {
            let program = object.program_fd(hook.program)?;
            link::replace_at(hook, &program, &dir.join(pin(&name, index)))?;
        }
    }
    Ok(())
}

/// Whether any interface has filters instead of links.
pub(crate) fn has_filters(dir: &Path) -> Result<bool> {
    Ok(marked(dir)?.iter().any(|(name, _)| name == FILTERS))
}

/// Replaces the programs of all filters, at interfaces of the calling thread's network namespace.
pub(crate) fn replace_filters(object: &mut Object, dir: &Path) -> Result<()> {
    let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
    for (name, index) in marked(dir)? {
        let interface = interfaces.iter().find(|interface| interface.index == index);
        let Some(interface) = interface.filter(|_| name == FILTERS) else {
            continue;
        };
        for hook in INTERFACE_HOOKS {
            ensure_filter(object, hook, interface, dir).with_context(|| {
                format!("cannot replace {} at {}", hook.program, interface.name)
            })?;
        }
    }
    Ok(())
}

/// The name of a pin or mark of an interface.
fn pin(name: &str, index: u32) -> String {
    format!("{name}-{index}")
}

/// All pins and marks of interfaces, filters before their qdiscs.
fn marked(dir: &Path) -> Result<Vec<(String, u32)>> {
    let names = pins::names_in(dir)?;
    let mut marked: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let (name, index) = name.rsplit_once('-')?;
            Some((name.to_owned(), index.parse().ok()?))
        })
        .collect();
    marked.sort_by_key(|(name, _)| name == QDISC);
    Ok(marked)
}

/// Adds the program as a filter, or replaces the existing one, which may be another build's.
fn ensure_filter(
    object: &mut Object,
    hook: Hook,
    interface: &PodInterface,
    dir: &Path,
) -> Result<()> {
    add_qdisc(interface, dir)?;
    pins::create_dir(&dir.join(pin(FILTERS, interface.index)))?;
    let mut program = SchedClassifier::from_pin(object.program(hook.program)?)?;
    let (name, direction) = (interface.name.as_str(), direction(hook));
    let existing = SchedClassifierLink::attached(name, direction, PRIORITY, HANDLE, None)?;
    let options = NlOptions {
        priority: PRIORITY,
        handle: HANDLE,
        classid: None,
    };
    let id = program.attach_to_link(existing).or_else(|_| {
        let options = TcAttachOptions::Netlink(options);
        program.attach_with_options(name, direction, options)
    })?;
    // The filter would be detached when its link is dropped.
    let _attached = ManuallyDrop::new(program.take_link(id)?);
    Ok(())
}

fn add_qdisc(interface: &PodInterface, dir: &Path) -> Result<()> {
    match tc::qdisc_add_clsact(&interface.name) {
        Ok(()) => pins::create_dir(&dir.join(pin(QDISC, interface.index))),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            Ok(())
        }
        Err(error) => Err(error).context("cannot add the clsact qdisc"),
    }
}

fn remove_filters(interface: &PodInterface) -> Result<()> {
    for hook in INTERFACE_HOOKS {
        match tc::qdisc_detach_program(&interface.name, direction(hook), hook.program) {
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.with_context(|| {
                format!("cannot detach {} from {}", hook.program, interface.name)
            })?,
        }
    }
    Ok(())
}

const fn direction(hook: Hook) -> TcAttachType {
    match hook.attach_type {
        bpf_attach_type::BPF_TCX_INGRESS => TcAttachType::Ingress,
        _ => TcAttachType::Egress,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
