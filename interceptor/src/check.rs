//! Whether this machine supports capturing: every required feature is probed.
//!
//! Nothing is inferred from the kernel's version: distributions backport.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;

use crate::{
    bpf::{
        dispatcher,
        hooks::{self, Hook},
        interface_hooks::InterfaceHooks,
        link,
        maps::Maps,
        object::Object,
        offsets,
        pins::{self, Pins},
    },
    cgroup::{Cgroup, Hierarchy},
    host,
    netns::{Netns, NetnsSpec, interfaces, netlink},
    stdio::message,
};

/// The result for one required feature.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probe {
    pub feature: String,
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Probe {
    fn new(feature: impl Into<String>, remedy: &str, result: &Result<()>) -> Self {
        let problem = result
            .as_ref()
            .err()
            .map(|error| shorten(&format!("{error:#}")));
        Self {
            feature: feature.into(),
            ok: problem.is_none(),
            remedy: problem.is_some().then(|| remedy.to_owned()),
            problem,
        }
    }
}

/// The verifier's log ends with its error; the rest is for `RUST_LOG=debug`.
fn shorten(problem: &str) -> String {
    let Some((head, log)) = problem.split_once("Verifier output:") else {
        return problem.to_owned();
    };
    let error = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .rfind(|line| !STATISTICS.iter().any(|start| line.starts_with(start)));
    format!("{head}the verifier reports: {}", error.unwrap_or_default())
}

/// The prefixes of the statistics at the end of the verifier's log.
const STATISTICS: [&str; 5] = [
    "processed ",
    "verification time",
    "stack depth",
    "subprog ",
    ":",
];

/// Runs all probes, each after those that it depends on.
#[must_use]
pub(crate) fn run() -> Vec<Probe> {
    let mut probes = vec![Probe::new(
        "root",
        "run it as root (sudo)",
        &host::check_root(),
    )];
    if !probes[0].ok {
        return probes;
    }
    let hierarchy = Hierarchy::find().and_then(|hierarchy| {
        Cgroup::open(&hierarchy, None)?;
        Ok(hierarchy)
    });
    probes.push(Probe::new(
        "the host's cgroup2 root",
        "mount cgroup2, run in the host's cgroup namespace, or set --cgroup",
        &hierarchy.as_ref().map(drop).map_err(copy),
    ));
    let bpffs = host::ensure_bpffs();
    probes.push(Probe::new(
        "the host's bpffs",
        "mount the host's bpffs at /sys/fs/bpf",
        &bpffs,
    ));
    probes.push(Probe::new(
        "the kernel's BTF",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        &offsets::read().map(drop),
    ));
    probes.push(Probe::new(
        "netns cookie (SO_NETNS_COOKIE)",
        "use Linux 5.14 or later, or a kernel with this feature backported",
        &Netns::open(&NetnsSpec::Process(process::id())).map(drop),
    ));
    if bpffs.is_ok() {
        probes.extend(probe_programs(hierarchy.ok().as_ref()));
    }
    probes
}

fn copy(error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// Loads every program and attaches every hook, in a temporary cgroup and network namespace.
fn probe_programs(hierarchy: Option<&Hierarchy>) -> Vec<Probe> {
    let remedy = "use Linux 6.1 or later, or a kernel with this feature backported";
    let scratch = Scratch::new();
    let mut object = match scratch.load() {
        Ok(object) => object,
        Err(error) => {
            return vec![Probe::new("the BPF maps", remedy, &Err(error))];
        }
    };
    let mut probes = Vec::new();
    for program in [hooks::ITER_PROGRAM, hooks::FIB_PROGRAM] {
        let result = object.program_fd(program).map(drop);
        probes.push(Probe::new(format!("program {program}"), remedy, &result));
    }
    for hook in hooks::CGROUP_HOOKS.into_iter().chain([hooks::LOOKUP]) {
        let result = scratch.attach(&mut object, hook, hierarchy);
        let feature = format!("program {} ({:?})", hook.program, hook.attach_type);
        probes.push(Probe::new(feature, remedy, &result));
    }
    probes.push(Probe::new(
        "programs at interfaces (tcx or clsact)",
        remedy,
        &scratch.hook_interfaces(&mut object),
    ));
    probes
}

/// Pins and a cgroup for the probes, removed when dropped.
struct Scratch {
    pins: Pins,
    name: String,
}

impl Scratch {
    fn new() -> Self {
        let name = format!("interceptor-check-{}", process::id());
        Self {
            pins: Pins::named(&name),
            name,
        }
    }

    fn load(&self) -> Result<Object> {
        self.pins.create()?;
        let mut object = Object::new(self.pins.clone());
        object.read()?;
        Ok(object)
    }

    fn attach(&self, object: &mut Object, hook: Hook, hierarchy: Option<&Hierarchy>) -> Result<()> {
        let program = object.program_fd(hook.program)?;
        let links = self.pins.cgroup(0);
        pins::create_dir(&links)?;
        if hook == hooks::LOOKUP {
            let netns = own_netns()?;
            let maps = Maps::open(&self.pins.maps())?;
            dispatcher::share(&maps, &program)?;
            let dispatcher = dispatcher::load(&maps, netns.cookie())?;
            return link::ensure(hook, &dispatcher, &netns, &links).map(drop);
        }
        let Some(hierarchy) = hierarchy else {
            return Ok(());
        };
        let dir = self.cgroup(hierarchy);
        fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create the cgroup {}", dir.display()))?;
        link::check_no_exclusive_programs(hook, &dir, &hierarchy.mount)?;
        link::ensure(
            hook,
            &program,
            &Cgroup::open(hierarchy, Some(&dir))?,
            &links,
        )
        .map(drop)
    }

    /// Attaches to the only interface of a new network namespace, and detaches.
    fn hook_interfaces(&self, object: &mut Object) -> Result<()> {
        let hooks = InterfaceHooks::forwarding(&self.pins.netns(0));
        own_netns()?.run(|| {
            let all = netlink::run(async |handle| interfaces::list(&handle).await)?;
            all.iter()
                .try_for_each(|interface| hooks.ensure(object, interface))?;
            hooks.retain(&[])
        })
    }

    fn cgroup(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let pins_removed = self.pins.remove_all();
        let cgroup_removed = Hierarchy::find()
            .map(|hierarchy| self.cgroup(&hierarchy))
            .is_ok_and(|dir| !dir.exists() || fs::remove_dir(dir).is_ok());
        if pins_removed.is_err() || !cgroup_removed {
            message!(
                "interceptor: cannot remove the pins and the cgroup {} of the check",
                self.name
            );
        }
    }
}

/// A new network namespace, which exists until it is dropped.
fn own_netns() -> Result<Netns> {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
        let path = Path::new("/proc/thread-self/ns/net").to_owned();
        Netns::open(&NetnsSpec::File(path))
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread in the network namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_error_is_found_above_its_statistics() {
        let problem = "failed to load. Verifier output: 5347: (85) call bpf_set_retval#187\n\
                       At bpf_set_retval the register R1 has smin=1\n\
                       verification time 2018638 usec\nstack depth max 0\n\
                       subprog 0 (icept_connect6) main insns_self 14664\n\
                       processed 14664 insns\n: Invalid argument";
        let expected =
            "failed to load. the verifier reports: At bpf_set_retval the register R1 has smin=1";
        assert_eq!(shorten(problem), expected);
    }
}
