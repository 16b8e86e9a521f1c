//! The programs that all pods share, which also replace those of another build.

use std::os::fd::OwnedFd;

use anyhow::Result;
use aya_obj::generated::bpf_attach_type::{
    BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_SOCK_OPS,
    BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG,
};

use super::{
    dispatcher,
    hooks::{CGROUP_HOOKS, Hook, LOOKUP},
    interface_hooks::{InterfaceHooks, Side},
    link,
    maps::Maps,
    object::Object,
    pins::{self, Pins},
};

/// The shared programs of this build, loaded and pinned.
pub(crate) struct SharedPrograms {
    cgroup: Vec<(Hook, OwnedFd)>,
    lookup: OwnedFd,
}

impl SharedPrograms {
    /// Opens those that are pinned, and loads the others. Attaches none.
    pub(crate) fn open(object: &mut Object) -> Result<Self> {
        let hooks = CGROUP_HOOKS.iter().chain([&LOOKUP]);
        let names: Vec<_> = hooks.map(|hook| hook.program).collect();
        object.load(&names)?;
        let cgroup = CGROUP_HOOKS
            .into_iter()
            .map(|hook| Ok((hook, object.program_fd(hook.program)?)))
            .collect::<Result<Vec<_>>>()?;
        let lookup = object.program_fd(LOOKUP.program)?;
        Ok(Self { cgroup, lookup })
    }

    /// The programs for cgroups.
    #[must_use]
    pub(crate) fn at_cgroups(&self) -> &[(Hook, OwnedFd)] {
        &self.cgroup
    }

    /// Makes the programs of all network namespaces call this build's shared program.
    pub(crate) fn share(&self, maps: &Maps) -> Result<()> {
        dispatcher::share(maps, &self.lookup)
    }

    /// Replaces another build's programs that register listeners, wherever they are attached.
    pub(crate) fn replace_listener_programs(&self, pins: &Pins) -> Result<()> {
        self.replace_at_cgroups(pins, |hook| {
            UpgradeStage::of(hook) == UpgradeStage::RegisterListeners
        })
    }

    /// Replaces all others. As in an attach, programs that serve connections come before those that
    /// capture them: a stand-in that the new programs allocate is known to every program that receives
    /// it. Those that the old ones still allocate are known, too, because the tables are the same.
    pub(crate) fn replace_others(
        &self,
        object: &mut Object,
        maps: &Maps,
        pins: &Pins,
    ) -> Result<()> {
        self.replace_at_cgroups(pins, |hook| {
            UpgradeStage::of(hook) == UpgradeStage::ServeExisting
        })?;
        self.share(maps)?;
        for netns in pins.netns_cookies()? {
            let (dispatcher, dir) = (dispatcher::load(maps, netns)?, pins.netns(netns));
            link::replace(LOOKUP, &dispatcher, &dir)?;
            for side in [Side::Pod, Side::Node] {
                for hooks in InterfaceHooks::on(side, &dir) {
                    hooks.replace(object)?;
                }
            }
        }
        self.replace_at_cgroups(pins, |hook| {
            UpgradeStage::of(hook) == UpgradeStage::CaptureNew
        })?;
        remove_unknown(pins)
    }

    /// Replaces each program by one update of a link: every connection meets the old or the new one.
    fn replace_at_cgroups(&self, pins: &Pins, picks: impl Fn(Hook) -> bool) -> Result<()> {
        for (hook, program) in self.cgroup.iter().filter(|(hook, _)| picks(*hook)) {
            for cgroup in pins.cgroup_ids()? {
                link::replace(*hook, program, &pins.cgroup(cgroup))?;
            }
        }
        Ok(())
    }
}

/// Removes links of programs that this build does not have.
fn remove_unknown(pins: &Pins) -> Result<()> {
    for cgroup in pins.cgroup_ids()? {
        let dir = pins.cgroup(cgroup);
        for name in pins::names_in(&dir)? {
            if !CGROUP_HOOKS.iter().any(|hook| hook.program == name) {
                link::remove_pin(&dir.join(name))?;
            }
        }
    }
    Ok(())
}

/// What a program at a cgroup does for captured connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UpgradeStage {
    /// Registers the listeners that they must reach.
    RegisterListeners,
    /// Serves existing ones.
    ServeExisting,
    /// Captures new ones.
    CaptureNew,
}

impl UpgradeStage {
    const fn of(hook: Hook) -> Self {
        match hook.attach_type {
            BPF_CGROUP_SOCK_OPS => Self::RegisterListeners,
            BPF_CGROUP_INET4_CONNECT
            | BPF_CGROUP_INET6_CONNECT
            | BPF_CGROUP_UDP4_SENDMSG
            | BPF_CGROUP_UDP6_SENDMSG => Self::CaptureNew,
            _ => Self::ServeExisting,
        }
    }
}
