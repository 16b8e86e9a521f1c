//! The rules against literal lists.

use super::*;
use crate::settings::Dns;

/// Everything is captured, one owner: the arguments of a stock pod.
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
    input(settings, family).unwrap()
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
fn without_inbound_ports_the_jump_and_later_rules_are_missing() {
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
fn a_list_of_inbound_ports_disables_the_exclusions() {
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
fn a_loopback_cidr_captures_apps_that_call_themselves() {
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

/// The rules at the end are inserted, so they come before all others of their chain.
const TPROXY: &str = "\
* mangle
-N ISTIO_DIVERT
-N ISTIO_TPROXY
-N ISTIO_INBOUND
-A ISTIO_DIVERT -j MARK --set-mark 1337
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
-A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark
-A OUTPUT -p tcp -o lo -m mark --mark 1337 -j RETURN
-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark
-I ISTIO_INBOUND 1 -p tcp -m mark --mark 1337 -j RETURN
-I ISTIO_INBOUND 2 -p tcp -s 127.0.0.6/32 -i lo -j RETURN
-I ISTIO_INBOUND 3 -p tcp -i lo -m mark ! --mark 1338 -j RETURN
COMMIT
* nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
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

fn tproxy() -> Settings {
    Settings {
        mode: Mode::Tproxy,
        inbound_excluded_ports: "15020",
        ..Settings::default()
    }
}

#[test]
fn tproxy_captures_in_mangle_without_a_tunnel_rule() {
    assert_eq!(table(&tproxy(), Family::V4), TPROXY);
}

#[test]
fn tproxy_in_ipv6_differs_in_its_addresses_only() {
    let expected = TPROXY
        .replace("127.0.0.1/32", "::1/128")
        .replace("127.0.0.6/32", "::6/128");
    assert_eq!(table(&tproxy(), Family::V6), expected);
}

#[test]
fn tproxy_with_a_list_of_ports() {
    let settings = Settings {
        inbound_ports: "80,443",
        ..tproxy()
    };
    let expected = TPROXY
        .replace("-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN\n", "")
        .replace(
            "\
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
",
            "\
-A ISTIO_INBOUND -p tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_TPROXY
-A ISTIO_INBOUND -p tcp --dport 443 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp --dport 443 -j ISTIO_TPROXY
",
        );
    assert_eq!(table(&settings, Family::V4), expected);
}

#[test]
fn tproxy_without_inbound_ports_has_marks_but_no_jump() {
    let settings = Settings {
        inbound_ports: "",
        ..tproxy()
    };
    let table = table(&settings, Family::V4);
    assert!(table.starts_with(
        "\
* mangle
-N ISTIO_INBOUND
-A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark
"
    ));
    assert!(!table.contains("-j ISTIO_INBOUND"));
    assert!(!table.contains("TPROXY"));
}

#[test]
fn marks_ports_and_tables_can_be_chosen() {
    let settings = Settings {
        proxy_port: 16001,
        capture_port: 16006,
        tunnel_port: 16008,
        tproxy_mark: 7,
        ..tproxy()
    };
    let expected = TPROXY
        .replace("--mark 1337", "--mark 7")
        .replace("-mark 1337", "-mark 7")
        .replace("15001", "16001")
        .replace("15006", "16006")
        .replace("15008", "16008");
    assert_eq!(table(&settings, Family::V4), expected);
}

#[test]
fn rerouted_interfaces_precede_excluded_ones_last_first() {
    let settings = Settings {
        rerouted_interfaces: "eth1,eth2",
        excluded_interfaces: "net1,net2",
        ..Settings::default()
    };
    let table = table(&settings, Family::V4);
    let interfaces: Vec<_> = table
        .lines()
        .filter(|line| line.contains(" eth") || line.contains(" net"))
        .collect();
    assert_eq!(
        interfaces,
        [
            "-A PREROUTING -i net1 -j RETURN",
            "-A OUTPUT -o net1 -j RETURN",
            "-A PREROUTING -i net2 -j RETURN",
            "-A OUTPUT -o net2 -j RETURN",
            "-I PREROUTING 1 -i eth1 -j RETURN",
            "-I PREROUTING 1 -i eth2 -j RETURN",
            "-I PREROUTING 1 -i eth1 -j ISTIO_REDIRECT",
            "-I PREROUTING 1 -i eth2 -j ISTIO_REDIRECT",
        ]
    );
}

#[test]
fn rerouted_interfaces_follow_a_list_of_cidrs() {
    let settings = Settings {
        rerouted_interfaces: "eth1,eth2",
        outbound_cidrs: "10.0.0.0/8,fd00::/8,10.96.0.0/16",
        ..Settings::default()
    };
    let v4 = table(&settings, Family::V4);
    assert!(
        v4.ends_with(
            "\
-I PREROUTING 1 -i eth1 -d 10.0.0.0/8 -j ISTIO_REDIRECT
-I PREROUTING 1 -i eth2 -d 10.0.0.0/8 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
-I PREROUTING 1 -i eth1 -d 10.96.0.0/16 -j ISTIO_REDIRECT
-I PREROUTING 1 -i eth2 -d 10.96.0.0/16 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.96.0.0/16 -j ISTIO_REDIRECT
COMMIT
"
        ),
        "{v4}"
    );
    let v6 = table(&settings, Family::V6);
    assert!(v6.contains("-I PREROUTING 1 -i eth2 -d fd00::/8 -j ISTIO_REDIRECT"));
    assert!(!v6.contains("10."));
}

#[test]
fn tproxy_excludes_interfaces_in_both_tables() {
    let settings = Settings {
        excluded_interfaces: "net1",
        ..tproxy()
    };
    let table = table(&settings, Family::V4);
    let rules = "-A PREROUTING -i net1 -j RETURN\n-A OUTPUT -o net1 -j RETURN\n";
    assert_eq!(table.matches(rules).count(), 2, "{table}");
}

/// All queries, of a proxy with two UIDs and one GID.
const DNS: &str = "\
* nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-N ISTIO_OUTPUT_DNS
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 3 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 3 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 3 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 4 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 4 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 4 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 1 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
COMMIT
* raw
-N ISTIO_OUTPUT_DNS
-N ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 3 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 3 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 4 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 4 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 1 -j CT --zone 2
-A PREROUTING -j ISTIO_INBOUND
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1
COMMIT
";

fn dns(dns: Dns) -> Settings {
    Settings {
        uids: "3,4",
        gids: "1",
        inbound_ports: "",
        outbound_cidrs: "",
        dns,
        ..Settings::default()
    }
}

#[test]
fn all_dns_queries() {
    assert_eq!(table(&dns(Dns::All), Family::V4), DNS);
}

#[test]
fn dns_queries_to_some_servers() {
    let settings = dns(Dns::Servers("10.96.0.10,10.96.0.11"));
    let expected = DNS
        .replace(
            "\
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053
",
            "\
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-port 15053
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 10.96.0.11/32 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.11/32 -j REDIRECT --to-port 15053
",
        )
        .replace(
            "\
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1
",
            "\
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -s 10.96.0.10/32 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.11/32 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -s 10.96.0.11/32 -j CT --zone 1
",
        );
    assert_eq!(table(&settings, Family::V4), expected);
}

/// The owners' rules still match captured queries, and so do their zones.
#[test]
fn a_family_without_dns_servers_has_no_redirects() {
    let settings = dns(Dns::Servers("10.96.0.10"));
    let expected = DNS
        .replace("127.0.0.1/32", "::1/128")
        .replace("127.0.0.6/32", "::6/128")
        .replacen("-N ISTIO_OUTPUT_DNS\n", "", 1)
        .replace("-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS\n", "")
        .replace(
            "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053\n",
            "",
        )
        .replace(
            "-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053\n",
            "",
        )
        .replace(
            "-N ISTIO_OUTPUT_DNS\n-N ISTIO_INBOUND\n",
            "-N ISTIO_OUTPUT_DNS\n",
        )
        .replace("-A PREROUTING -j ISTIO_INBOUND\n", "")
        .replace("-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2\n", "")
        .replace("-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1\n", "");
    assert_eq!(table(&settings, Family::V6), expected);
}

#[test]
fn without_any_dns_server_there_is_no_dns_capture() {
    let (none, off) = (dns(Dns::Servers("")), dns(Dns::Off));
    assert_eq!(table(&none, Family::V4), table(&off, Family::V4));
    assert!(!table(&off, Family::V4).contains("53"));
}

#[test]
fn owner_groups_come_after_the_proxy() {
    for (included, excluded, expected) in [
        ("*", "", &[][..]),
        (
            "*",
            "101,202",
            &[
                "-A ISTIO_OUTPUT -m owner --gid-owner 101 -j RETURN",
                "-A ISTIO_OUTPUT -m owner --gid-owner 202 -j RETURN",
            ],
        ),
        (
            "101,202",
            "303",
            &["-A ISTIO_OUTPUT -m owner ! --gid-owner 101 -m owner ! --gid-owner 202 -j RETURN"],
        ),
        ("", "", &["-A ISTIO_OUTPUT -j RETURN"]),
    ] {
        let settings = Settings {
            owner_groups: included,
            excluded_owner_groups: excluded,
            ..Settings::default()
        };
        let table = table(&settings, Family::V4);
        let groups: Vec<_> = table
            .lines()
            .skip_while(|line| *line != "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN")
            .skip(1)
            .take_while(|line| !line.contains("127.0.0.1/32"))
            .collect();
        assert_eq!(groups, expected);
    }
}

#[test]
fn included_ports_come_after_excluded_cidrs() {
    let settings = Settings {
        outbound_ports: "80,443",
        outbound_excluded_cidrs: "10.2.0.0/16",
        outbound_cidrs: "10.0.0.0/8",
        ..Settings::default()
    };
    assert!(table(&settings, Family::V4).ends_with(
        "\
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -d 10.2.0.0/16 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 80 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -p tcp --dport 443 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
COMMIT
"
    ));
}

#[test]
fn the_loopback_cidr_is_ipv4s_alone() {
    let settings = Settings {
        loopback_cidr: "127.0.0.0/8",
        mode: Mode::Tproxy,
        ..Settings::default()
    };
    let v4 = table(&settings, Family::V4);
    assert!(!v4.contains("127.0.0.1/32"));
    assert_eq!(v4.matches("127.0.0.0/8").count(), 6);
    assert_eq!(table(&settings, Family::V6).matches("::1/128").count(), 6);
}

#[test]
fn invalid_packets_are_dropped_first() {
    let settings = Settings {
        drop_invalid: true,
        ..Settings::default()
    };
    let expected = "\
* mangle
-N ISTIO_DROP
-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP
-A ISTIO_DROP -j DROP
COMMIT
"
    .to_owned()
        + STOCK_POD;
    assert_eq!(table(&settings, Family::V4), expected);
}
