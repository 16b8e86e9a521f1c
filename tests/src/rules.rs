//! Istio's iptables rules, in REDIRECT mode without DNS capture, for the real iptables to apply.
//!
//! Written from `istio-interception.md`, section 2.2: this is what Interceptor is measured against,
//! and shares nothing with it.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::{
    agent::protocol::Family,
    command::{bounded, run},
    netns::Netns,
    settings::{Settings, items},
};

/// The tunnel's port, which the `nat` rules never redirect.
const TUNNEL: u16 = 15008;

const CHAINS: [&str; 4] = [
    "ISTIO_INBOUND",
    "ISTIO_REDIRECT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_OUTPUT",
];

/// Applies the rules in a network namespace: IPv6 ones only if `ipv6`.
pub fn apply(netns: &Netns, settings: &Settings, ipv6: bool) -> Result<()> {
    restore(netns, "iptables-restore", &nat_table(settings, Family::V4)?)?;
    if ipv6 {
        restore(
            netns,
            "ip6tables-restore",
            &nat_table(settings, Family::V6)?,
        )?;
        netns.ip("addr add ::6/128 dev lo")?;
    }
    Ok(())
}

fn restore(netns: &Netns, program: &str, table: &str) -> Result<()> {
    netns.enter(|| run(bounded(program).arg("--noflush"), table).map(drop))
}

/// The input of `iptables-restore` or `ip6tables-restore`.
pub fn nat_table(settings: &Settings, family: Family) -> Result<String> {
    let mut lines = vec!["* nat".to_owned()];
    lines.extend(CHAINS.map(|chain| format!("-N {chain}")));
    lines.extend(redirects(settings));
    lines.extend(inbound(settings));
    lines.extend(outbound(settings, family)?);
    lines.push("COMMIT".to_owned());
    Ok(lines.join("\n") + "\n")
}

fn redirects(settings: &Settings) -> Vec<String> {
    let (proxy, capture) = (settings.proxy_port, settings.capture_port);
    vec![
        format!("-A ISTIO_INBOUND -p tcp --dport {TUNNEL} -j RETURN"),
        format!("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {proxy}"),
        format!("-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {capture}"),
    ]
}

fn inbound(settings: &Settings) -> Vec<String> {
    if settings.inbound_ports.is_empty() {
        return Vec::new();
    }
    let port_rule =
        |port: &str, target: &str| format!("-A ISTIO_INBOUND -p tcp --dport {port} -j {target}");
    let mut rules = vec!["-A PREROUTING -p tcp -j ISTIO_INBOUND".to_owned()];
    if settings.inbound_ports == "*" {
        let excluded = items(settings.inbound_excluded_ports);
        rules.extend(excluded.map(|port| port_rule(port, "RETURN")));
        rules.push("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT".to_owned());
    } else {
        let included = items(settings.inbound_ports);
        rules.extend(included.map(|port| port_rule(port, "ISTIO_IN_REDIRECT")));
    }
    rules
}

fn outbound(settings: &Settings, family: Family) -> Result<Vec<String>> {
    let (localhost, six) = match family {
        Family::V4 => ("127.0.0.1/32", "127.0.0.6/32"),
        Family::V6 => ("::1/128", "::6/128"),
    };
    let mut rules = vec!["-A OUTPUT -j ISTIO_OUTPUT".to_owned()];
    for port in items(settings.outbound_excluded_ports) {
        rules.push(format!("-A ISTIO_OUTPUT -p tcp --dport {port} -j RETURN"));
        rules.push(format!("-A ISTIO_OUTPUT -p udp --dport {port} -j RETURN"));
    }
    rules.push(format!("-A ISTIO_OUTPUT -o lo -s {six} -j RETURN"));
    let loopback_included = includes_loopback(settings)?;
    for (option, ids) in [
        ("--uid-owner", settings.uids),
        ("--gid-owner", settings.gids),
    ] {
        for id in items(ids) {
            rules.extend(owner(
                &format!("{option} {id}"),
                localhost,
                loopback_included,
            ));
        }
    }
    rules.push(format!("-A ISTIO_OUTPUT -d {localhost} -j RETURN"));
    rules.extend(destinations(settings, family)?);
    Ok(rules)
}

/// The rules of one UID or GID.
fn owner(owner: &str, localhost: &str, loopback_included: bool) -> Vec<String> {
    let mut rules = vec![format!(
        "-A ISTIO_OUTPUT -o lo ! -d {localhost} -p tcp ! --dport {TUNNEL} -m owner {owner} \
         -j ISTIO_IN_REDIRECT"
    )];
    if !loopback_included {
        rules.push(format!(
            "-A ISTIO_OUTPUT -o lo -m owner ! {owner} -j RETURN"
        ));
    }
    rules.push(format!("-A ISTIO_OUTPUT -m owner {owner} -j RETURN"));
    rules
}

fn destinations(settings: &Settings, family: Family) -> Result<Vec<String>> {
    let mut rules = Vec::new();
    for cidr in items(settings.outbound_excluded_cidrs) {
        if family_of(cidr)? == family {
            rules.push(format!("-A ISTIO_OUTPUT -d {cidr} -j RETURN"));
        }
    }
    if settings.outbound_cidrs == "*" {
        rules.push("-A ISTIO_OUTPUT -j ISTIO_REDIRECT".to_owned());
        return Ok(rules);
    }
    for cidr in items(settings.outbound_cidrs) {
        if family_of(cidr)? == family {
            rules.push(format!("-A ISTIO_OUTPUT -d {cidr} -j ISTIO_REDIRECT"));
        }
    }
    Ok(rules)
}

/// Whether the address of any included CIDR, in either family, is a loopback one.
fn includes_loopback(settings: &Settings) -> Result<bool> {
    if settings.outbound_cidrs == "*" {
        return Ok(false);
    }
    let mut found = false;
    for cidr in items(settings.outbound_cidrs) {
        found |= address_of(cidr)?.is_loopback();
    }
    Ok(found)
}

fn family_of(cidr: &str) -> Result<Family> {
    Ok(match address_of(cidr)? {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    })
}

fn address_of(cidr: &str) -> Result<IpAddr> {
    let (address, _) = cidr.split_once('/').context("a CIDR has a /")?;
    Ok(address.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 2.3, to the letter.
    const STOCK_POD: &str = "\
* nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";

    fn table(settings: &Settings, family: Family) -> String {
        nat_table(settings, family).unwrap()
    }

    #[test]
    fn the_stock_pod_gets_the_literal_list() {
        assert_eq!(table(&Settings::default(), Family::V4), STOCK_POD);
    }

    #[test]
    fn ipv6_differs_in_its_addresses_only() {
        let expected = STOCK_POD
            .replace("127.0.0.1/32", "::1/128")
            .replace("127.0.0.6/32", "::6/128");
        assert_eq!(table(&Settings::default(), Family::V6), expected);
    }

    #[test]
    fn without_inbound_ports_only_the_jump_and_what_follows_is_missing() {
        let settings = Settings {
            inbound_ports: "",
            ..Settings::default()
        };
        let expected: String = STOCK_POD
            .split_inclusive('\n')
            .filter(|line| !line.contains("PREROUTING"))
            .filter(|line| !line.contains("-A ISTIO_INBOUND") || line.contains("15008"))
            .collect();
        assert_eq!(table(&settings, Family::V4), expected);
    }

    #[test]
    fn a_list_of_inbound_ports_makes_the_excluded_ones_moot() {
        let settings = Settings {
            inbound_ports: "8080,15020",
            ..Settings::default()
        };
        let expected = STOCK_POD
            .replace("-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n", "")
            .replace("15021 -j RETURN", "8080 -j ISTIO_IN_REDIRECT")
            .replace("15020 -j RETURN", "15020 -j ISTIO_IN_REDIRECT")
            .replace("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n", "");
        assert_eq!(table(&settings, Family::V4), expected);
    }

    #[test]
    fn outbound_lists_keep_their_order_and_their_family() {
        let settings = Settings {
            outbound_cidrs: "10.0.0.0/8,fd00::/8,10.96.0.1/24",
            outbound_excluded_cidrs: "fd00:1::/64,10.2.0.0/16",
            outbound_excluded_ports: "9999,",
            ..Settings::default()
        };
        let excluded = "-A OUTPUT -j ISTIO_OUTPUT\n\
                        -A ISTIO_OUTPUT -p tcp --dport 9999 -j RETURN\n\
                        -A ISTIO_OUTPUT -p udp --dport 9999 -j RETURN\n\
                        -A ISTIO_OUTPUT -o lo -s ";
        let v4 = table(&settings, Family::V4);
        assert!(v4.contains(excluded), "{v4}");
        assert!(
            v4.ends_with(
                "-A ISTIO_OUTPUT -d 10.2.0.0/16 -j RETURN\n\
                 -A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT\n\
                 -A ISTIO_OUTPUT -d 10.96.0.1/24 -j ISTIO_REDIRECT\n\
                 COMMIT\n"
            ),
            "{v4}"
        );
        let v6 = table(&settings, Family::V6);
        assert!(
            v6.ends_with(
                "-A ISTIO_OUTPUT -d fd00:1::/64 -j RETURN\n\
                 -A ISTIO_OUTPUT -d fd00::/8 -j ISTIO_REDIRECT\n\
                 COMMIT\n"
            ),
            "{v6}"
        );
    }

    #[test]
    fn a_loopback_cidr_lets_apps_be_captured_on_their_way_to_themselves_in_both_families() {
        let settings = Settings {
            outbound_cidrs: "127.1.0.0/16",
            ..Settings::default()
        };
        for family in [Family::V4, Family::V6] {
            assert!(!table(&settings, family).contains("-o lo -m owner !"));
        }
    }

    #[test]
    fn every_uid_comes_before_every_gid() {
        let settings = Settings {
            uids: "3,4",
            gids: "1,2",
            ..Settings::default()
        };
        let table = table(&settings, Family::V4);
        let owners: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("-A ISTIO_OUTPUT -m owner "))
            .collect();
        assert_eq!(
            owners,
            [
                "--uid-owner 3 -j RETURN",
                "--uid-owner 4 -j RETURN",
                "--gid-owner 1 -j RETURN",
                "--gid-owner 2 -j RETURN",
            ]
        );
    }
}
