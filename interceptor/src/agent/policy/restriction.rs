//! Whether new settings capture everything that the old settings capture.
//!
//! Many users may change a pod's annotations without the permission to take the pod out of the mesh. So
//! a change tightens only if the new settings capture every connection that the old ones capture, and
//! redirect it to the same proxy. All other changes, and those that are hard to decide, relax.

use ipnet::IpNet;

use crate::settings::{
    Mode, Settings,
    ports::{PortRange, PortSelection},
    prefixes::PrefixSelection,
};

/// Whether `new` captures everything that `old` does.
#[must_use]
pub fn captures_superset(old: &Settings, new: &Settings) -> bool {
    let Settings {
        outbound_port: _,
        inbound_port: _,
        tunnel_port: _,
        mode: _,
        tproxy_mark: _,
        tproxy_table: _,
        proxy_uids: _,
        proxy_gids: _,
        inbound_ports: _,
        inbound_ports_exclude: _,
        outbound_prefixes,
        outbound_prefixes_exclude,
        outbound_ports,
        outbound_ports_exclude,
        excluded_interfaces,
        rerouted_interfaces: _,
        owner_groups: _,
        loopback: _,
        dns: _,
        drop_invalid: _,
        dual_stack,
        strict,
    } = new;
    if old == new {
        return true;
    }
    is_plain(old)
        && keeps_other_settings(old, new)
        && contains(&inbound(new), &inbound(old))
        && selects(outbound_prefixes, &old.outbound_prefixes)
        && (captures_self_calls(outbound_prefixes) || !captures_self_calls(&old.outbound_prefixes))
        && covers(&old.outbound_prefixes_exclude, outbound_prefixes_exclude)
        && contains(&Ports::of(outbound_ports), &Ports::of(&old.outbound_ports))
        && contains(
            &Ports::of(&old.outbound_ports_exclude),
            &Ports::of(outbound_ports_exclude),
        )
        && excluded_interfaces
            .iter()
            .all(|pattern| old.excluded_interfaces.contains(pattern))
        && (*dual_stack || !old.dual_stack)
        && *strict >= old.strict
}

/// Whether growing lists only capture more. With TPROXY or rerouted interfaces, a connection that is
/// captured outbound is not captured inbound: growing lists redirect connections differently.
fn is_plain(settings: &Settings) -> bool {
    settings.mode == Mode::Redirect && settings.rerouted_interfaces.is_empty()
}

/// Whether all settings except the lists of included and excluded traffic are unchanged: the listeners,
/// and the owners whose connections pass.
fn keeps_other_settings(old: &Settings, new: &Settings) -> bool {
    let with_lists_of_old = Settings {
        inbound_ports: old.inbound_ports.clone(),
        inbound_ports_exclude: old.inbound_ports_exclude.clone(),
        outbound_prefixes: old.outbound_prefixes.clone(),
        outbound_prefixes_exclude: old.outbound_prefixes_exclude.clone(),
        outbound_ports: old.outbound_ports.clone(),
        outbound_ports_exclude: old.outbound_ports_exclude.clone(),
        excluded_interfaces: old.excluded_interfaces.clone(),
        dual_stack: old.dual_stack,
        strict: old.strict,
        // Interceptor drops no packets for this setting.
        drop_invalid: old.drop_invalid,
        ..new.clone()
    };
    with_lists_of_old == *old
}

/// A set of ports, a bit each.
struct Ports(Vec<u64>);

impl Ports {
    const WORDS: usize = 1 << 10;

    fn of(ranges: &[PortRange]) -> Self {
        let mut ports = Self(vec![0; Self::WORDS]);
        for port in ranges.iter().flat_map(|range| range.ports()) {
            ports.0[usize::from(port >> 6)] |= 1 << (port & 63);
        }
        ports
    }

    fn all_but(ranges: &[PortRange]) -> Self {
        Self(Self::of(ranges).0.iter().map(|word| !word).collect())
    }
}

/// The inbound ports that are captured.
fn inbound(settings: &Settings) -> Ports {
    match &settings.inbound_ports {
        PortSelection::None => Ports::of(&[]),
        PortSelection::All => Ports::all_but(&settings.inbound_ports_exclude),
        PortSelection::Listed(ranges) => Ports::of(ranges),
    }
}

fn contains(all: &Ports, some: &Ports) -> bool {
    all.0
        .iter()
        .zip(&some.0)
        .all(|(all, some)| some & !all == 0)
}

fn selects(all: &PrefixSelection, some: &PrefixSelection) -> bool {
    match (all, some) {
        (PrefixSelection::All, _) => true,
        (PrefixSelection::Listed(_), PrefixSelection::All) => false,
        (PrefixSelection::Listed(all), PrefixSelection::Listed(some)) => covers(all, some),
    }
}

/// Whether an included prefix has a loopback address. istio-iptables then omits the rules that let an
/// app call its own pod (`HasLoopBackIP`). So `*` lets such calls pass, and `127.0.0.1/32` captures
/// them.
fn captures_self_calls(selection: &PrefixSelection) -> bool {
    match selection {
        PrefixSelection::All => false,
        PrefixSelection::Listed(prefixes) => {
            prefixes.iter().any(|prefix| prefix.addr().is_loopback())
        }
    }
}

/// Whether each of `some` is within one of `all`.
fn covers(all: &[IpNet], some: &[IpNet]) -> bool {
    some.iter()
        .all(|some| all.iter().any(|all| all.trunc().contains(&some.trunc())))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, net::IpAddr};

    use interceptor_ebpf::{
        Address, Flow, Inbound, Listener, NetnsState, Outbound, Owner, Transport, Verdict, decide,
    };
    use proptest::{prelude::*, sample::select, test_runner::TestRunner};

    use super::*;
    use crate::{
        netns::{localhost_routes::LocalhostRoutes, network::PodNetwork, stand_in_routes::Sources},
        policy::CompiledPolicy,
        settings::{InterfacePattern, tests::settings},
    };

    fn change(old: &[&str], new: &[&str]) -> bool {
        captures_superset(&settings(old, &[]).unwrap(), &settings(new, &[]).unwrap())
    }

    #[test]
    fn equal_settings_do_not_relax() {
        let stock = [
            "-b",
            "*",
            "-i",
            "*",
            "-d",
            "15090,15021,15020",
            "-x",
            "10.0.0.0/8",
        ];
        assert!(change(&stock, &stock));
    }

    #[test]
    fn more_included_or_less_excluded_tightens() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["-b", "80"], &["-b", "*"]),
            (&["-b", "80"], &["-b", "80:90"]),
            (&["-b", ""], &["-b", "80"]),
            (&["-b", "*", "-d", "1,2"], &["-b", "*", "-d", "2"]),
            (&["-i", "10.1.0.0/16"], &["-i", "10.0.0.0/8"]),
            (&["-i", ""], &["-i", "*"]),
            (
                &["-i", "*", "-x", "10.0.0.0/8"],
                &["-i", "*", "-x", "10.1.0.0/16"],
            ),
            (&["-q", "80"], &["-q", "79:81"]),
            (&["-o", "80,81"], &["-o", "81"]),
            (&["-c", "eth1,eth2"], &["-c", "eth2"]),
            (&[], &["--dual-stack"]),
        ];
        for (relaxed, tight) in cases {
            assert!(change(relaxed, tight), "{relaxed:?} to {tight:?}");
            assert!(!change(tight, relaxed), "{tight:?} to {relaxed:?}");
        }
    }

    #[test]
    fn with_tproxy_or_rerouted_interfaces_every_change_relaxes() {
        for kind in [["-m", "TPROXY"], ["-k", "eth1"]] {
            let with = |ports| [&kind[..], &["-b", "80", "-o", ports]].concat();
            assert!(!change(&with("53,80"), &with("53")), "{kind:?}");
            assert!(change(&with("53"), &with("53")), "{kind:?}");
        }
    }

    #[test]
    fn a_tighter_list_does_not_offset_a_relaxed_one() {
        assert!(!change(
            &["-b", "80", "-i", "*"],
            &["-b", "*", "-i", "10.0.0.0/8"]
        ));
        // One of the captured ports is removed, although the list is longer.
        assert!(!change(&["-b", "80"], &["-b", "81:90"]));
        assert!(!change(&["-b", "*", "-d", "80"], &["-b", "81,82"]));
    }

    #[test]
    fn another_proxy_relaxes() {
        for other in [
            ["-u", "0"],
            ["-p", "1"],
            ["-z", "1"],
            ["-m", "TPROXY"],
            ["-k", "eth1"],
        ] {
            assert!(!change(&[], &other), "{other:?}");
            assert!(!change(&other, &[]), "{other:?}");
        }
    }

    #[test]
    fn a_prefix_of_another_family_is_not_covered() {
        assert!(!change(&["-i", "10.0.0.0/8"], &["-i", "::/0"]));
        assert!(change(&["-i", "fd00::/8"], &["-i", "::/0"]));
    }

    #[test]
    fn a_loopback_prefix_captures_what_the_wildcard_does_not() {
        for wider in ["*", "127.0.0.0/8,0.0.0.0/0", "0.0.0.0/0"] {
            let captures_superset = change(&["-i", "127.0.0.1/32"], &["-i", wider]);
            assert_eq!(captures_superset, wider.starts_with("127"), "{wider}");
        }
    }

    /// Two settings that differ little, as before and after a change.
    fn changes() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
        const VALUES: [(&str, &[&str]); 10] = [
            ("-b", &["", "*", "80", "80,443", "1:1023", "15008", ","]),
            ("-d", &["", "80", "80,15020", "1:1023"]),
            (
                "-i",
                &[
                    "",
                    "*",
                    "10.0.0.0/8",
                    "10.1.0.0/16",
                    "127.0.0.1/8",
                    "0.0.0.0/0",
                    "::/0",
                    "::1/128",
                    "10.1.0.0/16,::/0",
                ],
            ),
            (
                "-x",
                &["", "10.1.0.0/16", "10.0.0.0/8", "10.1.0.9/32,::1/128"],
            ),
            ("-q", &["", "80", "53,80"]),
            ("-o", &["", "80", "53", "53,80"]),
            ("-c", &["", "eth1", "eth1,eth2", "eth+"]),
            ("-k", &["", "", "", "eth1"]),
            ("-m", &["", "", "", "TPROXY"]),
            ("--dual-stack", &["true", "false"]),
        ];
        let pairs: Vec<_> = VALUES
            .iter()
            .map(|(flag, values)| {
                let same = select(*values).prop_map(|value| (value, value));
                let pair = prop_oneof![10 => same, 1 => (select(*values), select(*values))];
                pair.prop_map(move |(old, new)| {
                    let argument = |value: &str| match *flag {
                        "--dual-stack" => vec![format!("{flag}={value}")],
                        flag => vec![flag.to_owned(), value.to_owned()],
                    };
                    (argument(old), argument(new))
                })
            })
            .collect();
        (pairs, any::<bool>()).prop_map(|(pairs, dns)| {
            let dns = dns.then(|| ["--redirect-dns", "--capture-all-dns"].map(str::to_owned));
            let dns: Vec<_> = dns.into_iter().flatten().collect();
            let (old, new): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let all = |arguments: Vec<Vec<String>>| {
                let arguments = arguments.into_iter().flatten();
                arguments.chain(dns.iter().cloned()).collect()
            };
            (all(old), all(new))
        })
    }

    /// A connection, without the settings' effect on its interface.
    #[derive(Clone, Copy, Debug)]
    struct Connection {
        is_inbound: bool,
        interface: &'static str,
        outbound: Outbound,
    }

    fn connections() -> impl Strategy<Value = Connection> {
        const ENDS: [(&str, &str); 8] = [
            ("10.1.0.2", "10.1.0.9"),
            ("10.1.0.2", "10.9.0.9"),
            ("10.1.0.2", "198.51.100.9"),
            ("10.1.0.2", "10.1.0.2"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.6", "10.1.0.2"),
            ("fd00:1::2", "fd00:2::9"),
            ("::1", "::1"),
        ];
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let ends = select(&ENDS[..]);
        let port = select(&[80, 443, 53, 8080, 15008, 15020][..]);
        let interface = select(&["lo", "eth0", "eth1", "eth2"][..]);
        let id = || select(&[0, 1000, 1337][..]);
        let transport = select(&[Transport::Tcp, Transport::Udp][..]);
        let flags = (any::<bool>(), any::<bool>());
        (ends, port, interface, id(), id(), transport, flags).prop_map(
            move |((source, destination), port, interface, uid, gid, transport, flags)| {
                Connection {
                    is_inbound: flags.0,
                    interface,
                    outbound: Outbound {
                        destination: address(destination),
                        port,
                        transport,
                        source: address(source),
                        via_loopback: interface == "lo",
                        by_excluded_interface: false,
                        is_marked: flags.1,
                        owner: Owner { uid, gid },
                    },
                }
            },
        )
    }

    /// Settings, compiled for a pod whose first address is an IPv4 address.
    struct Compiled {
        settings: Settings,
        compiled: CompiledPolicy,
    }

    impl Compiled {
        fn new(settings: Settings) -> Self {
            let network = PodNetwork {
                ipv6: settings.dual_stack,
                interfaces: Vec::new(),
                addresses: Vec::new(),
                routes: Vec::new(),
                limits: Vec::new(),
                state: NetnsState::default(),
                localhost: LocalhostRoutes::default(),
            };
            let compiled = CompiledPolicy::new(1, &settings, &network, &Sources::default());
            Self { settings, compiled }
        }

        /// The listener that receives a connection, if it is captured.
        fn captured(&self, connection: &Connection) -> Option<Listener> {
            match decide(
                &self.compiled.policy,
                &self.compiled,
                &self.flow(connection),
            ) {
                Verdict::Capture(listener, _) => Some(listener),
                Verdict::Pass(_) => None,
            }
        }

        fn flow(&self, connection: &Connection) -> Flow {
            let is_in = |patterns: &[InterfacePattern]| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| pattern.matches(connection.interface))
            };
            let by_excluded_interface = is_in(&self.settings.excluded_interfaces);
            if connection.is_inbound {
                Flow::Inbound(Inbound {
                    destination: connection.outbound.destination,
                    port: connection.outbound.port,
                    by_excluded_interface,
                    by_rerouted_interface: is_in(&self.settings.rerouted_interfaces),
                })
            } else {
                Flow::Outbound(Outbound {
                    by_excluded_interface,
                    ..connection.outbound
                })
            }
        }
    }

    #[test]
    fn captured_connections_stay_captured_when_settings_tighten() {
        const CASES: u32 = 2000;
        /// Required non-trivial cases: the settings differ and tighten, and a connection is captured.
        const MIN_TIGHTENING: u32 = 100;
        let parse = |arguments: &[String]| {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            settings(&arguments, &[]).unwrap()
        };
        let tightening = Cell::new(0);
        let cases = (changes(), proptest::collection::vec(connections(), 40));
        let result = TestRunner::new(ProptestConfig::with_cases(CASES)).run(
            &cases,
            |((old, new), connections)| {
                let is_change = old != new;
                let (mut old, mut new) = (parse(&old), parse(&new));
                if !captures_superset(&old, &new) {
                    (old, new) = (new, old);
                }
                if !captures_superset(&old, &new) {
                    return Ok(());
                }
                let (old, new) = (Compiled::new(old), Compiled::new(new));
                let mut captured = 0;
                for connection in connections {
                    if let Some(listener) = old.captured(&connection) {
                        captured += 1;
                        let stays = new.captured(&connection);
                        prop_assert_eq!(stays, Some(listener), "{:?}", connection);
                    }
                }
                if is_change && captured > 0 {
                    tightening.set(tightening.get() + 1);
                }
                Ok(())
            },
        );
        result.unwrap_or_else(|error| panic!("{error}"));
        let tightening = tightening.get();
        assert!(
            tightening >= MIN_TIGHTENING,
            "only {tightening} of {CASES} cases tighten settings under which a connection is captured"
        );
    }
}
