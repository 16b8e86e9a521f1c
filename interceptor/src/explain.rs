//! Explains how a connection of an attached pod is handled, and why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_ebpf::{
    Address, DNS_PORT, Flow, Inbound, InterfaceFlags, NetnsState, Outbound, Owner, Reason, Refusal,
    Transport, Verdict, decide,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{
    bpf::{maps::Maps, pins::Pins},
    dataplane::{record::Record, registry::policy_of},
    host,
    netns::{
        Netns,
        addresses::LOOPBACK_INDEX,
        interfaces::PodInterface,
        netlink,
        network::PodNetwork,
        route_limits::Limit,
        routes::{self, RouteLookup},
        stand_in_routes::{self, Sources},
    },
    policy::CompiledPolicy,
    rules::{Family, Packet, Rule, Rules, Table},
    settings::{Mode, Settings, Strict},
};

/// A connection to explain.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub transport: Transport,
    /// The destination, before any redirection.
    pub destination: SocketAddr,
    pub direction: Direction,
}

#[derive(Clone, Debug)]
pub(crate) enum Direction {
    /// From a socket of the pod.
    Outbound {
        /// The owner of the socket.
        owner: Owner,
        /// The address that the socket is bound to, if any.
        source: Option<IpAddr>,
    },
    /// From outside the pod.
    Inbound {
        /// The interface that the connection enters through; by default the one with the destination.
        interface: Option<String>,
    },
}

/// The result for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Not redirected.
    Passed,
    /// Redirected to the proxy.
    Captured {
        /// The port of the proxy's listener.
        port: u16,
    },
    /// It would be captured, but the pod has no route to the destination.
    Unroutable,
    /// Strict mode refuses it at the pod's interfaces.
    Refused,
}

/// The result and the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Explanation {
    pub outcome: Outcome,
    /// The reason as text.
    pub reason: String,
    /// The equivalent iptables rule. None if no rule matches.
    pub rule: Option<Rule>,
    /// The interface that the connection leaves or enters through.
    pub interface: Option<String>,
    pub source: Option<IpAddr>,
    /// What depends on the socket itself, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Explains with the settings that the pod is attached with, and its current network.
pub(crate) fn explain(netns: &Netns, query: &Query) -> Result<Explanation> {
    let Record { settings, ipv6, .. } = record_of(netns)?;
    netns.run(|| {
        netlink::run(async |handle| {
            let network = PodNetwork::read(&handle, ipv6, NetnsState::default()).await?;
            let destination = query.destination.ip();
            let route = routes::look_up(&handle, destination).await?;
            let stand_in =
                stand_in_routes::route_from(&handle, route.source(), destination).await?;
            let pod = Pod {
                stand_in: Some(stand_in),
                ..Pod::new(settings, network)
            };
            pod.explain(query, route)
        })
    })
}

fn record_of(netns: &Netns) -> Result<Record> {
    let _lock = host::lock()?;
    let policy = match Maps::open_if_complete(&Pins::new().maps())? {
        Some(maps) => policy_of(&maps, netns.cookie())?
            .filter(|policy| !policy.is_draining())
            .map(|policy| (maps, policy)),
        None => None,
    };
    let Some((maps, policy)) = policy else {
        bail!(
            "{} is not captured, so no connection is redirected; `interceptor attach` captures it",
            netns.path().display()
        );
    };
    Record::load(&maps, policy.id)
}

/// A pod's settings and its current network.
pub(crate) struct Pod {
    settings: Settings,
    network: PodNetwork,
    compiled: CompiledPolicy,
    /// The route to the destination's stand-in, if it was looked up.
    stand_in: Option<RouteLookup>,
}

impl Pod {
    pub(crate) fn new(settings: Settings, network: PodNetwork) -> Self {
        let compiled = CompiledPolicy::new(0, &settings, &network, &Sources::default());
        Self {
            settings,
            network,
            compiled,
            stand_in: None,
        }
    }

    pub(crate) fn explain(&self, query: &Query, route: RouteLookup) -> Result<Explanation> {
        match &query.direction {
            Direction::Outbound { owner, source } => {
                Ok(self.explain_outbound(query, route, *owner, *source))
            }
            Direction::Inbound { interface } => self.explain_inbound(query, interface.as_deref()),
        }
    }

    fn explain_outbound(
        &self,
        query: &Query,
        route: RouteLookup,
        owner: Owner,
        bound: Option<IpAddr>,
    ) -> Explanation {
        let source = bound.or_else(|| route.source());
        let interface = route.interface().and_then(|index| self.interface(index));
        let limit = self.limit(query.destination.ip());
        let flow = Flow::Outbound(Outbound {
            destination: query.destination.ip().into(),
            port: query.destination.port(),
            transport: query.transport,
            source: source.map_or(Address::UNSPECIFIED_V6, Address::from),
            via_loopback: matches!(route, RouteLookup::Loopback { .. }),
            by_excluded_interface: limit.is_none()
                && self.is_in(interface, InterfaceFlags::EXCLUDED),
            is_marked: false,
            owner,
        });
        let packet = Packet {
            transport: query.transport,
            source,
            destination: query.destination.ip(),
            port: query.destination.port(),
            in_interface: None,
            out_interface: interface.map(|interface| interface.name.clone()),
            owner: (owner != Owner::NONE).then_some(owner),
        };
        let verdict = self.verdict(&flow);
        let mut explanation = self.evaluate(verdict, &packet, "OUTPUT");
        explanation.note = limit.map(ToString::to_string);
        if let (Outcome::Captured { .. }, RouteLookup::Nowhere(errno), None) =
            (explanation.outcome, route, limit)
        {
            explanation.outcome = Outcome::Unroutable;
            explanation.reason = format!(
                "the pod has no route to the destination: {}",
                Errno::desc(errno)
            );
        } else if query.transport == Transport::Tcp {
            self.apply_stand_in_route(&mut explanation, bound);
        }
        if matches!(route, RouteLookup::Out { .. }) {
            self.apply_strict_mode(&mut explanation, query, interface, verdict);
        }
        explanation
    }

    /// At the interfaces that it guards, strict mode refuses what no setting exempts, as
    /// `programs/strict.rs` does.
    fn apply_strict_mode(
        &self,
        explanation: &mut Explanation,
        query: &Query,
        interface: Option<&PodInterface>,
        verdict: Verdict,
    ) {
        let is_dns = matches!(query.direction, Direction::Outbound { .. })
            && query.destination.port() == DNS_PORT;
        let refusal = match (query.transport, self.settings.strict) {
            (Transport::Tcp, Strict::Tcp | Strict::All) => Refusal::StrictPastProxy,
            (Transport::Udp, Strict::All) if !is_dns => Refusal::StrictProtocol,
            _ => return,
        };
        if explanation.outcome == Outcome::Passed
            && !verdict.is_exemption()
            && !self.is_in(interface, InterfaceFlags::EXCLUDED)
        {
            explanation.outcome = Outcome::Refused;
            refusal.words().clone_into(&mut explanation.reason);
        }
    }

    /// A captured connection goes to the destination's stand-in, by the pod's routes to it.
    fn apply_stand_in_route(&self, explanation: &mut Explanation, bound: Option<IpAddr>) {
        match (explanation.outcome, self.stand_in) {
            (Outcome::Captured { .. }, Some(RouteLookup::Loopback { source }))
                if bound.is_none() =>
            {
                explanation.source = source.or(explanation.source);
            }
            (Outcome::Captured { .. }, Some(RouteLookup::Out { .. } | RouteLookup::Nowhere(_))) => {
                explanation.outcome = Outcome::Unroutable;
                stand_in_routes::ROUTES_LOST.clone_into(&mut explanation.reason);
            }
            _ => {}
        }
    }

    fn explain_inbound(&self, query: &Query, name: Option<&str>) -> Result<Explanation> {
        let interface = match name {
            Some(name) => Some(self.interface_named(name)?),
            None => self.interface_of(query.destination.ip()),
        };
        // The rules of PREROUTING do not apply: nat's only to the first packet that enters the network
        // namespace, mangle's return what has no mark.
        ensure!(
            interface.is_none_or(|interface| interface.index != LOOPBACK_INDEX),
            "lo receives only connections of the pod itself: explain this one without --inbound"
        );
        let flow = Flow::Inbound(Inbound {
            destination: query.destination.ip().into(),
            port: query.destination.port(),
            by_excluded_interface: self.is_in(interface, InterfaceFlags::EXCLUDED),
            by_rerouted_interface: self.is_in(interface, InterfaceFlags::REROUTED),
        });
        let packet = Packet {
            transport: query.transport,
            source: None,
            destination: query.destination.ip(),
            port: query.destination.port(),
            in_interface: interface.map(|interface| interface.name.clone()),
            out_interface: None,
            owner: None,
        };
        let verdict = self.verdict(&flow);
        let mut explanation = match query.transport {
            Transport::Tcp => self.evaluate(verdict, &packet, "PREROUTING"),
            Transport::Udp => Explanation {
                outcome: Outcome::Passed,
                reason: Reason::NotTcp.words().to_owned(),
                rule: None,
                interface: packet.in_interface,
                source: None,
                note: None,
            },
        };
        self.apply_strict_mode(&mut explanation, query, interface, verdict);
        Ok(explanation)
    }

    fn verdict(&self, flow: &Flow) -> Verdict {
        decide(&self.compiled.policy, &self.compiled, flow)
    }

    fn evaluate(&self, verdict: Verdict, packet: &Packet, chain: &str) -> Explanation {
        let (outcome, reason) = match verdict {
            Verdict::Pass(reason) => (Outcome::Passed, reason),
            Verdict::Capture(listener, reason) => {
                let port = listener.port(&self.compiled.policy);
                (Outcome::Captured { port }, reason)
            }
        };
        Explanation {
            outcome,
            reason: reason.words().to_owned(),
            rule: self.rule(packet, chain, reason),
            interface: packet
                .in_interface
                .clone()
                .or_else(|| packet.out_interface.clone()),
            source: packet.source,
            note: None,
        }
    }

    /// Why the copied routes of the destination's family are incomplete, if they are.
    fn limit(&self, destination: IpAddr) -> Option<&Limit> {
        let mut limits = self.network.limits.iter();
        limits.find(|limit| limit.ipv6 == destination.is_ipv6())
    }

    /// The first rule that decides: of `mangle` for TPROXY, otherwise of `nat`.
    fn rule(&self, packet: &Packet, chain: &str, reason: Reason) -> Option<Rule> {
        if reason == Reason::Ipv6Disabled {
            return None;
        }
        let family = match packet.destination {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let is_rerouted = matches!(reason, Reason::Rerouted | Reason::ReroutedNotIncluded);
        let is_tproxied = chain == "PREROUTING" && self.settings.mode == Mode::Tproxy;
        let table = if is_tproxied && !is_rerouted {
            Table::Mangle
        } else {
            Table::Nat
        };
        let rules = Rules::new(&self.settings, family);
        rules.first_match(table, chain, packet).cloned()
    }

    fn interface(&self, index: u32) -> Option<&PodInterface> {
        let mut interfaces = self.network.interfaces.iter();
        interfaces.find(|interface| interface.index == index)
    }

    fn interface_named(&self, name: &str) -> Result<&PodInterface> {
        let interfaces = &self.network.interfaces;
        interfaces
            .iter()
            .find(|interface| interface.name == name)
            .with_context(|| {
                let names: Vec<_> = interfaces.iter().map(|one| one.name.as_str()).collect();
                format!(
                    "--interface {name}: the pod has no such interface; it has {}",
                    names.join(", ")
                )
            })
    }

    /// The interface with `address`, or the first that is not `lo`.
    fn interface_of(&self, address: IpAddr) -> Option<&PodInterface> {
        let mut addresses = self.network.addresses.iter();
        let owner = addresses.find(|own| own.net.addr() == address);
        owner
            .and_then(|own| self.interface(own.interface))
            .or_else(|| self.network.interfaces.iter().find(|one| one.name != "lo"))
    }

    fn is_in(&self, interface: Option<&PodInterface>, list: InterfaceFlags) -> bool {
        let index = interface.map(|interface| interface.index);
        let mut interfaces = self.compiled.interfaces.iter();
        interfaces.any(|(key, one)| Some(key.index) == index && one.flags.contains(list))
    }
}

/// The destination of a connection: the unspecified address means localhost.
#[must_use]
pub(crate) fn effective(destination: SocketAddr) -> SocketAddr {
    let address = match destination.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address.to_canonical(),
    };
    SocketAddr::new(address, destination.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        netns::{addresses::PodAddress, localhost_routes::LocalhostRoutes},
        settings::tests::settings,
    };

    const STOCK: [&str; 6] = ["-b", "*", "-i", "*", "-d", "15020"];

    fn pod(flags: &[&str]) -> Pod {
        let network = PodNetwork {
            ipv6: false,
            interfaces: vec![PodInterface::up(1, "lo"), PodInterface::up(2, "eth0")],
            addresses: vec![PodAddress {
                net: "10.1.0.2/24".parse().unwrap(),
                interface: 2,
            }],
            routes: Vec::new(),
            limits: Vec::new(),
            state: NetnsState::default(),
            localhost: LocalhostRoutes::default(),
        };
        Pod::new(settings(flags, &[]).unwrap(), network)
    }

    fn query(destination: &str, direction: Direction) -> Query {
        Query {
            transport: Transport::Tcp,
            destination: destination.parse().unwrap(),
            direction,
        }
    }

    /// The outcome and the equivalent rule.
    fn explained(pod: &Pod, query: &Query, route: RouteLookup) -> (Outcome, String) {
        let explanation = pod.explain(query, route).unwrap();
        let rule = explanation.rule.map(|rule| rule.to_string());
        (explanation.outcome, rule.unwrap_or_default())
    }

    fn outbound(pod: &Pod, id: u32, destination: &str) -> (Outcome, String) {
        let own = ["127.0.0.1:80", "10.1.0.2:80"].contains(&destination);
        let source = Some([10, 1, 0, 2].into());
        let route = if own {
            RouteLookup::Loopback { source }
        } else {
            RouteLookup::Out {
                source,
                loopback_error: None,
                interface: 2,
            }
        };
        let owner = Owner { uid: id, gid: id };
        let source = None;
        let direction = Direction::Outbound { owner, source };
        explained(pod, &query(destination, direction), route)
    }

    fn inbound(pod: &Pod, destination: &str) -> (Outcome, String) {
        let interface = None;
        let query = query(destination, Direction::Inbound { interface });
        explained(pod, &query, RouteLookup::Nowhere(Errno::ENETUNREACH))
    }

    #[test]
    fn a_connection_on_loopback_is_not_inbound() {
        for mode in ["REDIRECT", "TPROXY"] {
            let pod = pod(&["-b", "*", "-m", mode]);
            let interface = Some("lo".to_owned());
            let query = query("10.1.0.2:80", Direction::Inbound { interface });
            let nowhere = RouteLookup::Nowhere(Errno::ENETUNREACH);
            let error = pod.explain(&query, nowhere).unwrap_err().to_string();
            assert!(error.contains("without --inbound"), "{error}");
        }
    }

    #[track_caller]
    fn assert_explained((outcome, rule): &(Outcome, String), port: Option<u16>, expected: &str) {
        let expected_outcome = port.map_or(Outcome::Passed, |port| Outcome::Captured { port });
        assert_eq!((*outcome, rule.as_str()), (expected_outcome, expected));
    }

    #[test]
    fn the_first_matching_rule_explains_an_outbound_connection() {
        let pod = pod(&STOCK);
        let app = |to| outbound(&pod, 1000, to);
        let proxy = |to| outbound(&pod, 1337, to);
        let to_self = "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner \
                       --uid-owner 1337 -j ISTIO_IN_REDIRECT";
        assert_explained(
            &app("10.2.0.9:80"),
            Some(15001),
            "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
        );
        assert_explained(
            &app("10.1.0.2:80"),
            None,
            "-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN",
        );
        assert_explained(
            &proxy("10.2.0.9:80"),
            None,
            "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
        );
        assert_explained(&proxy("10.1.0.2:80"), Some(15006), to_self);
    }

    #[test]
    fn the_first_matching_rule_explains_an_inbound_connection() {
        let stock = pod(&STOCK);
        assert_explained(
            &inbound(&stock, "10.1.0.2:8080"),
            Some(15006),
            "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        );
        assert_explained(
            &inbound(&stock, "10.1.0.2:15020"),
            None,
            "-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN",
        );
        let excluded = pod(&["-b", "*", "-c", "eth+"]);
        assert_explained(
            &inbound(&excluded, "10.1.0.2:80"),
            None,
            "-A PREROUTING -i eth+ -j RETURN",
        );
        let tproxy = pod(&["-b", "*", "-m", "TPROXY"]);
        assert_explained(
            &inbound(&tproxy, "10.1.0.2:15008"),
            Some(15006),
            "-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY",
        );
        assert_explained(&inbound(&pod(&["-i", "*"]), "10.1.0.2:80"), None, "");
    }

    #[test]
    fn strict_mode_refuses_what_no_setting_exempts() {
        let to = |strict: &str, transport, direction, port: u16| {
            let pod = pod(&["-b", "*", "-i", "*", "-d", "15020", "-o", "123", strict]);
            let query = Query {
                transport,
                destination: SocketAddr::new([10, 2, 0, 9].into(), port),
                direction,
            };
            let route = RouteLookup::Out {
                source: None,
                loopback_error: None,
                interface: 2,
            };
            pod.explain(&query, route).unwrap().outcome
        };
        let outbound = || Direction::Outbound {
            owner: Owner::NONE,
            source: None,
        };
        let inbound = || Direction::Inbound { interface: None };
        let udp = |strict, direction, port| to(strict, Transport::Udp, direction, port);
        assert_eq!(udp("--strict=all", outbound(), 80), Outcome::Refused);
        assert_eq!(udp("--strict=all", outbound(), 123), Outcome::Passed);
        assert_eq!(udp("--strict=all", outbound(), 53), Outcome::Passed);
        assert_eq!(udp("--strict=all", inbound(), 80), Outcome::Refused);
        assert_eq!(udp("--strict=all", inbound(), 15020), Outcome::Passed);
        assert_eq!(udp("--strict=tcp", outbound(), 80), Outcome::Passed);
        let tcp = |direction, port| to("--strict=all", Transport::Tcp, direction, port);
        assert_eq!(tcp(outbound(), 80), Outcome::Captured { port: 15001 });
        assert_eq!(tcp(outbound(), 123), Outcome::Passed);
        assert_eq!(tcp(inbound(), 80), Outcome::Captured { port: 15006 });
    }

    #[test]
    fn strict_mode_refuses_ipv6_that_is_not_captured() {
        let pod = pod(&["-b", "*", "--strict=tcp"]);
        let inbound = Direction::Inbound { interface: None };
        let query = query("[2001:db8::9]:80", inbound);
        let route = RouteLookup::Nowhere(Errno::ENETUNREACH);
        let explanation = pod.explain(&query, route).unwrap();
        assert_eq!(explanation.outcome, Outcome::Refused);
        assert_eq!(explanation.reason, Refusal::StrictPastProxy.words());
    }

    #[test]
    fn a_connection_without_a_route_is_refused() {
        let owner = Owner { uid: 0, gid: 0 };
        let source = None;
        let query = query("10.2.0.9:80", Direction::Outbound { owner, source });
        let route = RouteLookup::Nowhere(Errno::ENETUNREACH);
        assert_eq!(
            explained(&pod(&STOCK), &query, route).0,
            Outcome::Unroutable
        );
    }
}
