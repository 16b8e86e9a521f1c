//! Whether new settings capture all that old ones did.
//!
//! A pod's annotations may be changed by many who must not be able to take it out of the mesh. So a
//! change is called a tightening only where every connection that the old settings capture is
//! captured by the new ones, and taken to the same proxy; all else, and what is hard to tell, is a
//! loosening.

use ipnet::IpNet;

use crate::settings::{
    Settings,
    ports::{PortRange, PortSelection},
    prefixes::PrefixSelection,
};

/// Whether `new` captures everything that `old` does.
#[must_use]
pub fn tightens(old: &Settings, new: &Settings) -> bool {
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
    } = new;
    goes_alike(old, new)
        && contains(&inbound(new), &inbound(old))
        && selects(outbound_prefixes, &old.outbound_prefixes)
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
}

/// Whether all that is neither a list of what is captured nor of what is not is as it was: where
/// connections go, and who passes.
fn goes_alike(old: &Settings, new: &Settings) -> bool {
    let with_lists_of_old = Settings {
        inbound_ports: old.inbound_ports.clone(),
        inbound_ports_exclude: old.inbound_ports_exclude.clone(),
        outbound_prefixes: old.outbound_prefixes.clone(),
        outbound_prefixes_exclude: old.outbound_prefixes_exclude.clone(),
        outbound_ports: old.outbound_ports.clone(),
        outbound_ports_exclude: old.outbound_ports_exclude.clone(),
        excluded_interfaces: old.excluded_interfaces.clone(),
        dual_stack: old.dual_stack,
        // Nothing is dropped here.
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

/// Whether each of `some` is within one of `all`.
fn covers(all: &[IpNet], some: &[IpNet]) -> bool {
    some.iter()
        .all(|some| all.iter().any(|all| all.trunc().contains(&some.trunc())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn change(old: &[&str], new: &[&str]) -> bool {
        tightens(&settings(old, &[]).unwrap(), &settings(new, &[]).unwrap())
    }

    #[test]
    fn the_same_is_no_loosening() {
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
    fn more_captured_and_less_excluded_tightens() {
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
        for (loose, tight) in cases {
            assert!(change(loose, tight), "{loose:?} to {tight:?}");
            assert!(!change(tight, loose), "{tight:?} to {loose:?}");
        }
    }

    #[test]
    fn one_thing_tighter_does_not_make_up_for_another() {
        assert!(!change(
            &["-b", "80", "-i", "*"],
            &["-b", "*", "-i", "10.0.0.0/8"]
        ));
        // Of the listed ports one that was captured is gone, though there are more.
        assert!(!change(&["-b", "80"], &["-b", "81:90"]));
        assert!(!change(&["-b", "*", "-d", "80"], &["-b", "81,82"]));
    }

    #[test]
    fn another_proxy_is_no_tightening() {
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
    fn another_familys_prefix_is_not_covered() {
        assert!(!change(&["-i", "10.0.0.0/8"], &["-i", "::/0"]));
        assert!(change(&["-i", "fd00::/8"], &["-i", "::/0"]));
    }
}
