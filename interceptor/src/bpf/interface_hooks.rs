//! The programs at a pod's interfaces, which evaluate forwarded connections and enforce strict mode.
//!
//! If the kernel has links for them (`tcx`, Linux 6.6), these are pinned like all others. Otherwise they
//! are filters of the `clsact` qdisc, which exist without a pin; an empty directory among the pins
//! marks the interface.

use std::{
    io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use aya_obj::generated::bpf_attach_type;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    hooks::{Hook, INTERFACE_HOOKS, STRICT_AT_NODE, STRICT_AT_POD},
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

/// Marks an interface that has our filters.
const FILTERS: &str = "filters";
/// Marks an interface whose qdisc is ours.
const QDISC: &str = "clsact";

/// Two programs at some of a pod's interfaces, and the directory of their pins.
#[derive(Clone, Debug)]
pub(crate) struct InterfaceHooks {
    hooks: [Hook; 2],
    /// The handle of the filters.
    filter: TcHandle,
    dir: PathBuf,
}

impl InterfaceHooks {
    /// The programs for forwarded connections, in the network namespace of the pod with the pins in
    /// `netns`.
    pub(crate) fn forwarding(netns: &Path) -> Self {
        Self {
            hooks: INTERFACE_HOOKS,
            filter: TcHandle::new(0, 0x1ce),
            dir: netns.to_owned(),
        }
    }

    /// Those of strict mode.
    pub(crate) fn strict(side: Side, netns: &Path) -> Self {
        let (hooks, dir) = match side {
            Side::Node => (STRICT_AT_NODE, "strict-at-node"),
            Side::Pod => (STRICT_AT_POD, "strict-at-pod"),
        };
        Self {
            hooks,
            filter: TcHandle::new(0, 0x1cf),
            dir: netns.join(dir),
        }
    }

    /// All programs that the pod with the pins in `netns` may have at interfaces on `side`.
    pub(crate) fn on(side: Side, netns: &Path) -> Vec<Self> {
        match side {
            Side::Node => vec![Self::strict(side, netns)],
            Side::Pod => vec![Self::forwarding(netns), Self::strict(side, netns)],
        }
    }

    /// Attaches the programs to an interface of the calling thread's network namespace, unless they
    /// are.
    pub(crate) fn ensure(&self, object: &mut Object, interface: &PodInterface) -> Result<()> {
        pins::create_dir(&self.dir)?;
        self.hooks.into_iter().try_for_each(|hook| {
            self.ensure_hook(object, hook, interface)
                .with_context(|| format!("cannot attach {} at {}", hook.program, interface.name))
        })
    }

    fn ensure_hook(&self, object: &mut Object, hook: Hook, interface: &PodInterface) -> Result<()> {
        let pin = self.pin(hook.program, interface.index);
        if link::is_alive(hook, &pin)? {
            return Ok(());
        }
        link::remove_pin(&pin)?;
        let program = object.program_fd(hook.program)?;
        match sys::link_create_at_interface(&program, interface.index, hook.attach_type as u32) {
            Ok(link) => Ok(sys::obj_pin(&link, &pin)?),
            // A kernel without such links.
            Err(error) if is(&error, Errno::EINVAL) => self.ensure_filter(object, hook, interface),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `interface`, of the calling thread's network namespace, has both programs.
    pub(crate) fn are_attached(&self, interface: &PodInterface) -> Result<bool> {
        if pins::exists(&self.pin(FILTERS, interface.index))? {
            return clsact::has_filters(interface, PRIORITY, self.filter.into());
        }
        for hook in self.hooks {
            if !link::is_alive(hook, &self.pin(hook.program, interface.index))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Detaches the programs from all interfaces of the calling thread's network namespace except
    /// those in `kept`.
    pub(crate) fn retain(&self, kept: &[PodInterface]) -> Result<()> {
        let mut removed = self.marked()?;
        removed.retain(|(_, index)| kept.iter().all(|interface| interface.index != *index));
        // Only filters are removed by their interface; a node may have hundreds of interfaces.
        let has_filters = removed
            .iter()
            .any(|(name, _)| [FILTERS, QDISC].contains(&name.as_str()));
        let interfaces = if has_filters {
            netlink::run(async |handle| interfaces::list(&handle).await)?
        } else {
            Vec::new()
        };
        for (name, index) in removed {
            // The filters of a deleted interface are deleted too.
            let interface = interfaces.iter().find(|interface| interface.index == index);
            match (name.as_str(), interface) {
                (FILTERS, Some(interface)) => self.remove_filters(interface)?,
                (QDISC, Some(interface)) => clsact::remove(interface)?,
                _ => {}
            }
            let pin = self.pin(&name, index);
            if pin.is_dir() {
                pins::remove_tree(&pin)?;
            } else {
                link::remove_pin(&pin)?;
            }
        }
        Ok(())
    }

    /// Whether all links of strict mode of the pod with the pins in `netns` have an interface.
    pub(crate) fn are_strict_alive(netns: &Path) -> Result<bool> {
        for side in [Side::Node, Side::Pod] {
            let strict = Self::strict(side, netns);
            for (name, index) in strict.marked()? {
                let hook = strict.hooks.into_iter().find(|hook| hook.program == name);
                if let Some(hook) = hook
                    && !link::is_alive(hook, &strict.pin(&name, index))?
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Replaces the programs of all pinned links by this build's.
    pub(crate) fn replace(&self, object: &mut Object) -> Result<()> {
        for (name, index) in self.marked()? {
            if let Some(hook) = self.hooks.into_iter().find(|hook| hook.program == name) {
                let program = object.program_fd(hook.program)?;
                link::replace_at(hook, &program, &self.pin(&name, index))?;
            }
        }
        Ok(())
    }

    /// Whether no interface has the programs.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        Ok(self.marked()?.is_empty())
    }

    /// Whether any interface has filters instead of links.
    pub(crate) fn has_filters(&self) -> Result<bool> {
        Ok(self.marked()?.iter().any(|(name, _)| name == FILTERS))
    }

    /// Replaces the programs of all filters, at interfaces of the calling thread's network namespace.
    pub(crate) fn replace_filters(&self, object: &mut Object) -> Result<()> {
        let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
        for (name, index) in self.marked()? {
            let interface = interfaces.iter().find(|interface| interface.index == index);
            let Some(interface) = interface.filter(|_| name == FILTERS) else {
                continue;
            };
            for hook in self.hooks {
                self.ensure_filter(object, hook, interface)
                    .with_context(|| {
                        format!("cannot replace {} at {}", hook.program, interface.name)
                    })?;
            }
        }
        Ok(())
    }

    /// The pin or mark of an interface.
    fn pin(&self, name: &str, index: u32) -> PathBuf {
        self.dir.join(format!("{name}-{index}"))
    }

    /// All pins and marks of interfaces, filters before their qdiscs.
    fn marked(&self) -> Result<Vec<(String, u32)>> {
        let names = pins::names_in(&self.dir)?;
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
        &self,
        object: &mut Object,
        hook: Hook,
        interface: &PodInterface,
    ) -> Result<()> {
        self.add_qdisc(interface)?;
        pins::create_dir(&self.pin(FILTERS, interface.index))?;
        let mut program = SchedClassifier::from_pin(object.program(hook.program)?)?;
        let (name, direction) = (interface.name.as_str(), direction(hook));
        let handle = self.filter;
        let existing = SchedClassifierLink::attached(name, direction, PRIORITY, handle, None)?;
        let options = NlOptions {
            priority: PRIORITY,
            handle,
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

    fn add_qdisc(&self, interface: &PodInterface) -> Result<()> {
        match tc::qdisc_add_clsact(&interface.name) {
            Ok(()) => pins::create_dir(&self.pin(QDISC, interface.index)),
            Err(TcError::NetlinkError(error))
                if error.raw_os_error() == Some(Errno::EEXIST as i32) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("cannot add the clsact qdisc"),
        }
    }

    fn remove_filters(&self, interface: &PodInterface) -> Result<()> {
        for hook in self.hooks {
            match tc::qdisc_detach_program(&interface.name, direction(hook), hook.program) {
                Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.with_context(|| {
                    format!("cannot detach {} from {}", hook.program, interface.name)
                })?,
            }
        }
        Ok(())
    }
}

/// On which side of a pod's interface programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// At its peer in the node's network namespace.
    Node,
    /// In the pod's network namespace.
    Pod,
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
