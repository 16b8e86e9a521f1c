//! The captured pods and their problems.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{ListenerKey, NetnsCookie, NetnsState, Policy};
use rtnetlink::Handle;
use serde::{Deserialize, Serialize};

use crate::{
    bpf::{hooks, interface_hooks::InterfaceHooks, link, maps::Maps, pins::Pins},
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        attach_points::CgroupName,
        coverage,
        record::Record,
        registry::{attached, policy_of},
    },
    host,
    netns::{
        Netns, NetnsSpec, interfaces, netlink, network::PodNetwork, routes::RouteLookup,
        stand_in_routes,
    },
    outcome::ConnectionCount,
};

/// One captured pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PodStatus {
    pub netns_cookie: NetnsCookie,
    /// The settings and attach points.
    #[serde(flatten)]
    pub attached: Record,
    /// Sockets of the proxy that listen for captured outbound connections.
    pub outbound_listeners: usize,
    /// Sockets of the proxy that listen for captured inbound connections.
    pub inbound_listeners: usize,
    /// Whether the pod's interfaces, addresses or routes have changed since the last attach. The pod
    /// stays captured; the next attach applies the changes.
    pub network_changed: bool,
    /// Stand-ins that were evicted because the pod needed more than its share: connections to these
    /// destinations continue, but `SO_ORIGINAL_DST` no longer returns them.
    pub evicted_stand_ins: u64,
    /// The connections since the attach, without results that have none.
    pub connections: Vec<ConnectionCount>,
    /// Problems, each with what to do.
    pub warnings: Vec<String>,
}

/// Reads the status of all captured pods, or of one.
pub(crate) fn read(only: Option<&NetnsSpec>) -> Result<Vec<PodStatus>> {
    let only = only.map(Netns::open).transpose()?;
    let mut pods = read_attached(only.as_ref())?;
    for (pod, policy) in &mut pods {
        pod.check_network(policy)?;
    }
    let mut pods: Vec<_> = pods.into_iter().map(|(pod, _)| pod).collect();
    pods.sort_by(|a, b| a.attached.netns.cmp(&b.attached.netns));
    Ok(pods)
}

/// Reads everything except the pods' networks, which may be large: other commands wait for the lock.
fn read_attached(only: Option<&Netns>) -> Result<Vec<(PodStatus, Policy)>> {
    let pins = Pins::new();
    let _lock = host::lock()?;
    let Some(maps) = Maps::open_if_complete(&pins.maps())? else {
        return Ok(Vec::new());
    };
    let listeners: Vec<_> = maps
        .listeners
        .keys()
        .collect::<Result<_, _>>()
        .context("cannot list the listeners")?;
    let mut pods = Vec::new();
    for (netns, _) in attached(&maps)? {
        if only.is_none_or(|only| only.cookie() == netns)
            && let Some(policy) = policy_of(&maps, netns)?
        {
            let pod = pod_status(&pins, &maps, netns, &policy, &listeners)?;
            pods.push((pod, policy));
        }
    }
    Ok(pods)
}

fn pod_status(
    pins: &Pins,
    maps: &Maps,
    netns: NetnsCookie,
    policy: &Policy,
    listeners: &[ListenerKey],
) -> Result<PodStatus> {
    let attached = Record::load(maps, policy.id)?;
    let mut warnings = warnings(pins, netns, &attached)?;
    if policy.is_draining() {
        warnings.push(
            "the pod is being detached: new connections are not captured. If no detach is running, \
             one was interrupted: detach the pod again, or attach it"
                .to_owned(),
        );
    }
    let count = |port| {
        listeners
            .iter()
            .filter(|key| key.netns == netns && key.port == port)
            .count()
    };
    Ok(PodStatus {
        netns_cookie: netns,
        outbound_listeners: count(policy.outbound_port),
        inbound_listeners: count(policy.inbound_port),
        network_changed: false,
        evicted_stand_ins: maps.evicted_stand_ins(netns),
        connections: connections(maps, policy)?,
        warnings,
        attached,
    })
}

fn connections(maps: &Maps, policy: &Policy) -> Result<Vec<ConnectionCount>> {
    let counts = maps.connections(policy)?.into_iter();
    Ok(counts
        .map(|(counted, count)| ConnectionCount::new(counted, count))
        .collect())
}

fn warnings(pins: &Pins, netns: NetnsCookie, attached: &Record) -> Result<Vec<String>> {
    let pin = pins.netns(netns).join(hooks::LOOKUP.program);
    if !link::is_alive(hooks::LOOKUP, &pin)? {
        return Ok(vec![
            "the network namespace no longer exists: the next attach or detach cleans up"
                .to_owned(),
        ]);
    }
    let mut warnings: Vec<_> = attached.limits.iter().map(ToString::to_string).collect();
    for (cgroup, hooks) in attached.attach_points().with_hooks() {
        for hook in hooks {
            let pin = pins.cgroup(cgroup.id).join(hook.program);
            if !link::is_alive(hook, &pin)? {
                warnings.push(format!(
                    "the program {} is not attached at {}: attach the pod again",
                    hook.program,
                    cgroup.path.display()
                ));
            }
        }
    }
    warnings.extend(unhooked(pins, netns, attached)?);
    warnings.extend(unguarded(pins, netns, attached)?);
    warnings.extend(cgroup_problem(netns, attached));
    Ok(warnings)
}

impl PodStatus {
    /// The pod's name, or its network namespace.
    pub(crate) fn display_name(&self) -> String {
        match &self.attached.pod {
            Some(name) => name.to_string(),
            None => self.attached.netns.display().to_string(),
        }
    }

    /// Compares the pod's network with the last attach, and checks the routes that capture requires.
    fn check_network(&mut self, policy: &Policy) -> Result<()> {
        let Some(netns) = open(self.netns_cookie, &self.attached) else {
            return Ok(());
        };
        let attached = &self.attached;
        let (now, lost) = netns.run(|| {
            netlink::run(async |handle| {
                let now = PodNetwork::read(&handle, attached.ipv6, NetnsState::default()).await?;
                let lost = lost_routes(&handle, policy, &now).await?;
                Ok((now, lost))
            })
        })?;
        self.network_changed = now.digest() != self.attached.network;
        self.warnings.extend(lost);
        Ok(())
    }
}

/// The problem with the routes to the stand-ins, if any.
async fn lost_routes(
    netlink: &Handle,
    policy: &Policy,
    now: &PodNetwork,
) -> Result<Option<String>> {
    for source in [policy.first_source_v6, policy.first_source_v4] {
        if source.is_unspecified() {
            continue;
        }
        let source = IpAddr::from(source);
        let exists = now.addresses.iter().any(|own| own.net.addr() == source);
        match stand_in_routes::first_route(netlink, source).await? {
            RouteLookup::Loopback { source: Some(now) } if now != source && exists => {
                return Ok(Some(format!(
                    "captured connections have the source address {now} instead of {source}: the \
                     pod's routes of protocol 153 were removed. Attach the pod again, or use \
                     `interceptor run` or the agent, which restore them"
                )));
            }
            RouteLookup::Loopback { .. } => {}
            RouteLookup::Out { .. } | RouteLookup::Nowhere(_) => {
                return Ok(Some(stand_in_routes::ROUTES_LOST.to_owned()));
            }
        }
    }
    Ok(None)
}

/// Lists the interfaces through which TCP is forwarded without a program: new ones, and those that
/// did not forward at the last attach.
fn unhooked(pins: &Pins, cookie: NetnsCookie, attached: &Record) -> Result<Option<String>> {
    let Some(netns) = open(cookie, attached) else {
        return Ok(None);
    };
    let dir = pins.netns(cookie);
    let unhooked = netns.run(|| unhooked_interfaces(&dir, attached))?;
    Ok((!unhooked.is_empty()).then(|| {
        format!(
            "TCP that enters through {} and is forwarded by the pod is not captured: attach the \
             pod again, or use `interceptor run`, which follows changes",
            unhooked.join(", ")
        )
    }))
}

/// Lists the interfaces at which strict mode is not enforced, such as new ones.
fn unguarded(pins: &Pins, cookie: NetnsCookie, attached: &Record) -> Result<Option<String>> {
    if attached.settings.strict.is_off() {
        return Ok(None);
    }
    let Some(netns) = open(cookie, attached) else {
        return Ok(None);
    };
    let interfaces = netns.run(|| netlink::run(async |handle| interfaces::list(&handle).await))?;
    let mut unguarded: Vec<_> = interfaces::guarded(&interfaces, &attached.settings)
        .into_iter()
        .filter(|interface| interface.is_up)
        .map(|interface| interface.name)
        .collect();
    if InterfaceHooks::are_strict_alive(&pins.netns(cookie))? {
        let guarded = &attached.uplinks;
        unguarded.retain(|name| guarded.iter().all(|uplink| uplink.interface != *name));
    }
    Ok((!unguarded.is_empty()).then(|| {
        format!(
            "strict mode is not enforced at {}: attach the pod again, or use `interceptor run` or \
             the agent, which follow changes",
            unguarded.join(", ")
        )
    }))
}

/// Those of the calling thread's network namespace, with its pins in `dir`.
fn unhooked_interfaces(dir: &Path, attached: &Record) -> Result<Vec<String>> {
    let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
    let hooks = InterfaceHooks::forwarding(dir);
    let mut unhooked = Vec::new();
    for interface in interfaces::watched(&interfaces, &attached.settings) {
        if !hooks.are_attached(&interface)? {
            unhooked.push(interface.name);
        }
    }
    Ok(unhooked)
}

/// `None` if the path no longer refers to the namespace.
fn open(netns: NetnsCookie, attached: &Record) -> Option<Netns> {
    let open = Netns::open(&NetnsSpec::File(attached.netns.clone())).ok()?;
    (open.cookie() == netns).then_some(open)
}

/// Why programs do not run for the pod's sockets: a cgroup was deleted, or processes outside of it have
/// joined the pod.
fn cgroup_problem(netns: NetnsCookie, attached: &Record) -> Option<String> {
    let hierarchy = Hierarchy::find().ok()?;
    let open_cgroup = |name: &CgroupName| match Cgroup::open(&hierarchy, Some(&name.path)) {
        Ok(cgroup) if cgroup.id() == name.id => Ok(cgroup),
        _ => Err(format!(
            "the cgroup {} no longer exists, so new sockets are not captured: attach the pod again",
            name.path.display()
        )),
    };
    let attach_points = match attached.attach_points().try_map(open_cgroup) {
        Ok(attach_points) => attach_points,
        Err(problem) => return Some(problem),
    };
    let netns = open(netns, attached)?;
    let problem = coverage::check_covered(&netns, &attach_points, &hierarchy).err()?;
    Some(format!("{problem:#}"))
}
