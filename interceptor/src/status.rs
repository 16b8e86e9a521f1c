//! What is attached, and whether it is as it should be.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{ListenerKey, NetnsCookie, NetnsState, Policy};
use rtnetlink::Handle;
use serde::Serialize;

use crate::{
    bpf::{hooks, interface_hooks, link, maps::Maps, pins::Pins},
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        attach_points::CgroupName,
        coverage,
        record::Record,
        registry::{attached, policy_of},
    },
    host,
    netns::{
        Netns, NetnsSpec, interfaces, netlink, network::PodNetwork, routes::Way, stand_in_routes,
    },
};

/// One captured pod.
#[derive(Clone, Debug, Serialize)]
pub struct PodStatus {
    /// The network namespace's cookie.
    pub netns_cookie: NetnsCookie,
    /// What it was attached with.
    #[serde(flatten)]
    pub attached: Record,
    /// How many sockets of the proxy listen for captured outbound connections.
    pub outbound_listeners: usize,
    /// How many sockets of the proxy listen for captured inbound connections.
    pub inbound_listeners: usize,
    /// Whether the pod's interfaces, addresses or routes are others than those it was attached with.
    /// It is captured all the same; the next attach follows them.
    pub network_changed: bool,
    /// How many stand-ins were evicted because the pod needed more than its share: connections to
    /// those destinations go on, but `SO_ORIGINAL_DST` no longer knows them.
    pub evicted_stand_ins: u64,
    /// What is wrong, if anything.
    pub warnings: Vec<String>,
}

/// Reads the status of every captured pod, or of the one that is named.
pub fn read(only: Option<&NetnsSpec>) -> Result<Vec<PodStatus>> {
    let only = only.map(Netns::open).transpose()?;
    let mut pods = read_attached(only.as_ref())?;
    for (pod, policy) in &mut pods {
        pod.look_at_network(policy)?;
    }
    let mut pods: Vec<_> = pods.into_iter().map(|(pod, _)| pod).collect();
    pods.sort_by(|a, b| a.attached.netns.cmp(&b.attached.netns));
    Ok(pods)
}

/// Reads all but what the pods' networks are like, which may be large: other commands wait meanwhile.
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
            "it is being detached: new connections are not captured. If no detach is running, one \
             was killed: detach the pod again, or attach it"
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
        warnings,
        attached,
    })
}

fn warnings(pins: &Pins, netns: NetnsCookie, attached: &Record) -> Result<Vec<String>> {
    let pin = pins.netns(netns).join(hooks::LOOKUP.program);
    if !link::is_alive(hooks::LOOKUP, &pin)? {
        return Ok(vec![
            "the network namespace is gone; the next attach or detach tidies up".to_owned(),
        ]);
    }
    let mut warnings: Vec<_> = attached.limits.iter().map(ToString::to_string).collect();
    for (cgroup, hooks) in attached.attach_points().with_hooks() {
        for hook in hooks {
            let pin = pins.cgroup(cgroup.id).join(hook.program);
            if !link::is_alive(hook, &pin)? {
                warnings.push(format!(
                    "{} is not attached at {}: attach the pod again",
                    hook.program,
                    cgroup.path.display()
                ));
            }
        }
    }
    warnings.extend(unwatched(pins, netns, attached)?);
    warnings.extend(cgroup_problem(netns, attached));
    Ok(warnings)
}

impl PodStatus {
    /// Compares the pod's network with what it was, and with what capturing takes.
    fn look_at_network(&mut self, policy: &Policy) -> Result<()> {
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

/// What is the matter with the routes to the stand-ins, if anything.
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
        let is_there = now.addresses.iter().any(|own| own.net.addr() == source);
        match stand_in_routes::first_way(netlink, source).await? {
            Way::Loopback { source: Some(now) } if now != source && is_there => {
                return Ok(Some(format!(
                    "captured connections come from {now} instead of {source}: somebody has taken \
                     away the pod's routes of protocol 153: attach it again, or use `interceptor \
                     run` or the agent, which put them back"
                )));
            }
            Way::Loopback { .. } => {}
            Way::Out { .. } | Way::Nowhere(_) => {
                return Ok(Some(stand_in_routes::GONE.to_owned()));
            }
        }
    }
    Ok(None)
}

/// Names the interfaces by which TCP is forwarded unseen: those that are new, or that forward only
/// now.
fn unwatched(pins: &Pins, cookie: NetnsCookie, attached: &Record) -> Result<Option<String>> {
    let Some(netns) = open(cookie, attached) else {
        return Ok(None);
    };
    let folder = pins.netns(cookie);
    let unseen = netns.run(|| unwatched_interfaces(&folder, attached))?;
    Ok((!unseen.is_empty()).then(|| {
        format!(
            "TCP that comes in by {} and is forwarded through the pod is not captured: attach the \
             pod again, or use `interceptor run`, which follows changes",
            unseen.join(", ")
        )
    }))
}

/// Those of the calling thread's network namespace, whose pins are in `folder`.
fn unwatched_interfaces(folder: &Path, attached: &Record) -> Result<Vec<String>> {
    let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
    let mut unseen = Vec::new();
    for interface in interfaces::watched(&interfaces, &attached.settings) {
        if !interface_hooks::are_attached(&interface, folder)? {
            unseen.push(interface.name);
        }
    }
    Ok(unseen)
}

/// A namespace that can no longer be opened by the path it had cannot be looked at.
fn open(netns: NetnsCookie, attached: &Record) -> Option<Netns> {
    let open = Netns::open(&NetnsSpec::File(attached.netns.clone())).ok()?;
    (open.cookie() == netns).then_some(open)
}

/// Names what keeps the pod's sockets from being seen: a cgroup that is gone, or processes that came
/// into the pod since and are not below it.
fn cgroup_problem(netns: NetnsCookie, attached: &Record) -> Option<String> {
    let hierarchy = Hierarchy::find().ok()?;
    let open_place = |place: &CgroupName| match Cgroup::open(&hierarchy, Some(&place.path)) {
        Ok(cgroup) if cgroup.id() == place.id => Ok(cgroup),
        _ => Err(format!(
            "the cgroup {} is gone, and new sockets are not captured: attach the pod again",
            place.path.display()
        )),
    };
    let places = match attached.attach_points().try_map(open_place) {
        Ok(places) => places,
        Err(problem) => return Some(problem),
    };
    let problem = coverage::check_covered(&open(netns, attached)?, &places, &hierarchy).err()?;
    Some(format!("{problem:#}"))
}
