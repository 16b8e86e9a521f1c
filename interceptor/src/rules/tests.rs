//! Literal lists of rules.

use pretty::assert_lines;

use super::*;
use crate::settings::{DnsCapture, tests::settings};

mod pretty {
    /// Both, with one rule per line, so that a failure shows the difference.
    #[track_caller]
    pub(super) fn assert_lines(found: &str, expected: &str) {
        let [found, expected] = [found, expected].map(|text| text.lines().collect::<Vec<_>>());
        assert_eq!(found, expected);
    }
}

const STOCK: &[&str] = &[
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-x",
    "",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
];

const STOCK_RULES: &str = "\
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

/// Translates an IPv4 list to IPv6.
fn in_v6(rules: &str) -> String {
    rules
        .replace("127.0.0.1/32", "::1/128")
        .replace("127.0.0.6/32", "::6/128")
}

fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
    // A user that does not exist: the default UID applies.
    let variables = [&[("ENVOY_USER", "nobody-has-this-name")], variables].concat();
    settings(arguments, &variables).unwrap()
}

fn v4(settings: &Settings) -> Rules {
    Rules::new(settings, Family::V4)
}

fn v6(settings: &Settings) -> Rules {
    Rules::new(settings, Family::V6)
}

/// The rules of one table, without those that every list has.
fn of_table(rules: &Rules, table: Table) -> String {
    let of_table = Rules(rules.in_table(table).cloned().collect());
    of_table.to_string()
}

/// The rules of one chain of the table `nat`.
fn chain(rules: &Rules, name: &str) -> String {
    let rules = rules.in_table(Table::Nat).filter(|rule| rule.chain == name);
    let lines = rules.map(|rule| format!("{rule}\n"));
    lines.collect::<Vec<_>>().concat()
}

#[test]
fn the_stock_pod_in_both_families() {
    let settings = with(STOCK, &[]);
    assert_lines(&v4(&settings).to_string(), STOCK_RULES);
    assert_lines(&v6(&settings).to_string(), &in_v6(STOCK_RULES));
}

/// Without any flag: no jump to the inbound chain, and nothing is redirected outbound.
#[test]
fn no_settings() {
    let expected: String = STOCK_RULES
        .split_inclusive('\n')
        .filter(|line| !line.contains("PREROUTING") && !line.ends_with("-j ISTIO_REDIRECT\n"))
        .filter(|line| !line.contains("-A ISTIO_INBOUND") || line.contains("15008"))
        .collect();
    assert_lines(&v4(&with(&[], &[])).to_string(), &expected);
}

#[test]
fn inbound_ports_as_a_list() {
    let rules = v4(&with(&["-b", "80,8000:8010", "-d", "22", "-e", "9"], &[]));
    assert_lines(
        &chain(&rules, "ISTIO_INBOUND"),
        "-A ISTIO_INBOUND -p tcp --dport 9 -j RETURN\n\
         -A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT\n\
         -A ISTIO_INBOUND -p tcp --dport 8000:8010 -j ISTIO_IN_REDIRECT\n",
    );
    // An empty list is not the same as none: the jump exists.
    let rules = v4(&with(&["-b", ","], &[]));
    assert_lines(
        &chain(&rules, "PREROUTING"),
        "-A PREROUTING -p tcp -j ISTIO_INBOUND\n",
    );
    assert_lines(
        &chain(&rules, "ISTIO_INBOUND"),
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\n",
    );
}

#[test]
fn outbound_ports_and_cidrs() {
    let arguments = [
        "-o",
        "53,9999",
        "-q",
        "80,443",
        "-x",
        "10.2.0.0/16,fd00:1::/64",
        "-i",
        "10.0.0.0/8,fd00::/8,10.96.0.1/24",
        "-u",
        "0",
        "-p",
        "1",
        "-z",
        "2",
    ];
    let settings = with(&arguments, &[]);
    let expected = "\
-A ISTIO_OUTPUT -p tcp --dport 53 -j RETURN
-A ISTIO_OUTPUT -p udp --dport 53 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 9999 -j RETURN
-A ISTIO_OUTPUT -p udp --dport 9999 -j RETURN
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 0 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 0 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 0 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 0 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 0 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 0 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -d 10.2.0.0/16 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 80 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -p tcp --dport 443 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -d 10.96.0.1/24 -j ISTIO_REDIRECT
";
    assert_lines(&chain(&v4(&settings), "ISTIO_OUTPUT"), expected);
    let in_v6 = in_v6(expected)
        .replace("-d 10.2.0.0/16 -j RETURN", "-d fd00:1::/64 -j RETURN")
        .replace("-d 10.0.0.0/8 ", "-d fd00::/8 ")
        .replace("-A ISTIO_OUTPUT -d 10.96.0.1/24 -j ISTIO_REDIRECT\n", "");
    assert_lines(&chain(&v6(&settings), "ISTIO_OUTPUT"), &in_v6);
    assert_lines(
        &chain(&v4(&settings), "ISTIO_IN_REDIRECT"),
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 2\n",
    );
}

/// Each rerouted interface is inserted at the top, so the last one is first.
#[test]
fn interfaces() {
    let all = with(
        &["-c", "net1,eth+", "-k", "eth1,eth2", "-b", "*", "-i", "*"],
        &[],
    );
    let expected = "\
-A PREROUTING -i net1 -j RETURN
-A PREROUTING -i eth+ -j RETURN
-I PREROUTING 1 -i eth1 -j RETURN
-I PREROUTING 1 -i eth2 -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-I PREROUTING 1 -i eth1 -j ISTIO_REDIRECT
-I PREROUTING 1 -i eth2 -j ISTIO_REDIRECT
";
    assert_lines(&chain(&v4(&all), "PREROUTING"), expected);
    assert_lines(&chain(&v6(&all), "PREROUTING"), expected);
    assert_lines(
        &chain(&v4(&all), "OUTPUT"),
        "-A OUTPUT -o net1 -j RETURN\n-A OUTPUT -o eth+ -j RETURN\n-A OUTPUT -j ISTIO_OUTPUT\n",
    );
    let listed = with(
        &["-k", "eth1,eth2", "-i", "10.0.0.0/8,fd00::/8,9.9.0.0/16"],
        &[],
    );
    assert_lines(
        &chain(&v4(&listed), "PREROUTING"),
        "-I PREROUTING 1 -i eth1 -j RETURN\n\
         -I PREROUTING 1 -i eth2 -j RETURN\n\
         -I PREROUTING 1 -i eth1 -d 10.0.0.0/8 -j ISTIO_REDIRECT\n\
         -I PREROUTING 1 -i eth2 -d 10.0.0.0/8 -j ISTIO_REDIRECT\n\
         -I PREROUTING 1 -i eth1 -d 9.9.0.0/16 -j ISTIO_REDIRECT\n\
         -I PREROUTING 1 -i eth2 -d 9.9.0.0/16 -j ISTIO_REDIRECT\n",
    );
    assert_lines(
        &chain(&v6(&listed), "PREROUTING"),
        "-I PREROUTING 1 -i eth1 -j RETURN\n\
         -I PREROUTING 1 -i eth2 -j RETURN\n\
         -I PREROUTING 1 -i eth1 -d fd00::/8 -j ISTIO_REDIRECT\n\
         -I PREROUTING 1 -i eth2 -d fd00::/8 -j ISTIO_REDIRECT\n",
    );
}

#[test]
fn every_uid_comes_before_every_gid() {
    let rules = v4(&with(&["-u", "3,4", "-g", "1,2"], &[]));
    let owners = [
        "--uid-owner 3",
        "--uid-owner 4",
        "--gid-owner 1",
        "--gid-owner 2",
    ];
    let expected = owners.map(|owner| {
        format!(
            "-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner {owner} \
             -j ISTIO_IN_REDIRECT\n\
             -A ISTIO_OUTPUT -o lo -m owner ! {owner} -j RETURN\n\
             -A ISTIO_OUTPUT -m owner {owner} -j RETURN\n"
        )
    });
    let expected = expected.concat();
    let output = chain(&rules, "ISTIO_OUTPUT");
    assert!(output.contains(&expected), "{output}");
}

#[test]
fn owner_groups() {
    let include = "ISTIO_OUTBOUND_OWNER_GROUPS";
    let exclude = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE";
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[], ""),
        (
            &[(exclude, "101,202")],
            "-A ISTIO_OUTPUT -m owner --gid-owner 101 -j RETURN\n\
             -A ISTIO_OUTPUT -m owner --gid-owner 202 -j RETURN\n",
        ),
        (
            &[(include, "101,202"), (exclude, "7")],
            "-A ISTIO_OUTPUT -m owner ! --gid-owner 101 -m owner ! --gid-owner 202 -j RETURN\n",
        ),
        (&[(include, "")], "-A ISTIO_OUTPUT -j RETURN\n"),
    ];
    let before = "-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN\n";
    let behind = "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n";
    for (variables, rules) in cases {
        let output = chain(&v4(&with(STOCK, variables)), "ISTIO_OUTPUT");
        assert!(
            output.contains(&format!("{before}{rules}{behind}")),
            "{output}"
        );
    }
}

/// A loopback CIDR of one family removes from both the rule that exempts an app's connections to itself.
#[test]
fn a_loopback_cidr() {
    for cidr in ["127.1.0.0/16", "::1/128", "127.0.0.1/0"] {
        let settings = with(&["-i", cidr], &[]);
        for rules in [v4(&settings), v6(&settings)] {
            assert!(!rules.to_string().contains("-o lo -m owner !"), "{cidr}");
        }
    }
    let other = [("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/8")];
    let expected = STOCK_RULES.replace("127.0.0.1/32", "127.0.0.1/8");
    assert_lines(&v4(&with(STOCK, &other)).to_string(), &expected);
    assert_lines(&v6(&with(STOCK, &other)).to_string(), &in_v6(STOCK_RULES));
}

#[test]
fn all_dns() {
    let flags = ["--redirect-dns", "--capture-all-dns", "-u", "3", "-g", "1"];
    let rules = v4(&with(&flags, &[]));
    assert_lines(
        &chain(&rules, "ISTIO_OUTPUT"),
        "\
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 3 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 3 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 3 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 1 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
",
    );
    assert_lines(
        &chain(&rules, "ISTIO_OUTPUT_DNS"),
        "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053\n\
         -A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053\n",
    );
    let raw = "\
* raw
-N ISTIO_OUTPUT_DNS
-N ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 3 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 3 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 1 -j CT --zone 2
-A PREROUTING -j ISTIO_INBOUND
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1
COMMIT
";
    assert_lines(&of_table(&rules, Table::Raw), raw);
}

fn with_servers(servers: &[&str]) -> Settings {
    let servers = servers.iter().map(|server| server.parse().unwrap());
    Settings {
        dns: DnsCapture::Servers(servers.collect()),
        ..with(&["-u", "3", "-g", "1"], &[])
    }
}

#[test]
fn dns_servers_of_both_families() {
    let settings = with_servers(&["10.96.0.10", "fd00::a", "127.0.0.53"]);
    assert_lines(
        &chain(&v4(&settings), "ISTIO_OUTPUT_DNS"),
        "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053\n\
         -A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d 127.0.0.53/32 -j REDIRECT --to-ports 15053\n\
         -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-port 15053\n\
         -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 127.0.0.53/32 -j REDIRECT --to-port 15053\n",
    );
    let raw = of_table(&v4(&settings), Table::Raw);
    let ending = "\
-A PREROUTING -j ISTIO_INBOUND
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -s 10.96.0.10/32 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 127.0.0.53/32 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -s 127.0.0.53/32 -j CT --zone 1
COMMIT
";
    assert!(raw.ends_with(ending), "{raw}");
    assert_lines(
        &chain(&v6(&settings), "ISTIO_OUTPUT_DNS"),
        "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -d fd00::a/128 -j REDIRECT --to-ports 15053\n\
         -A ISTIO_OUTPUT_DNS -p udp --dport 53 -d fd00::a/128 -j REDIRECT --to-port 15053\n",
    );
}

/// The other family has the proxy's zones and the exceptions in the owner rules, but no redirect.
#[test]
fn dns_servers_of_one_family() {
    let settings = with_servers(&["10.96.0.10"]);
    let rules = v6(&settings);
    assert!(!chain(&rules, "ISTIO_OUTPUT").contains("ISTIO_OUTPUT_DNS"));
    assert_eq!(chain(&rules, "ISTIO_OUTPUT_DNS"), "");
    assert!(chain(&rules, "ISTIO_OUTPUT").contains("! --dports 53,15008"));
    let raw = "\
* raw
-N ISTIO_OUTPUT_DNS
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 3 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 3 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 1 -j CT --zone 2
COMMIT
";
    assert_lines(&of_table(&rules, Table::Raw), raw);
}

/// A chain without rules is created for the jump to it.
#[test]
fn a_chain_that_is_only_jumped_to() {
    let settings = Settings {
        dns: DnsCapture::Servers(vec!["10.96.0.10".parse().unwrap()]),
        ..with(&["-u", ",", "-g", ","], &[])
    };
    assert_lines(
        &of_table(&v6(&settings), Table::Raw),
        "* raw\n-N ISTIO_OUTPUT_DNS\n-A OUTPUT -j ISTIO_OUTPUT_DNS\nCOMMIT\n",
    );
}

#[test]
fn invalid_packets() {
    let rules = v4(&with(&["--drop-invalid"], &[]));
    assert_lines(
        &of_table(&rules, Table::Mangle),
        "* mangle\n\
         -N ISTIO_DROP\n\
         -A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP\n\
         -A ISTIO_DROP -j DROP\n\
         COMMIT\n",
    );
}

/// The last rules of the table `mangle`, for any inbound ports.
const TPROXY_ENDING: &str = "\
-A PREROUTING -p tcp -m mark --mark 7 -j CONNMARK --save-mark
-A OUTPUT -p tcp -o lo -m mark --mark 7 -j RETURN
-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT -p tcp -m connmark --mark 7 -j CONNMARK --restore-mark
-I ISTIO_INBOUND 1 -p tcp -m mark --mark 7 -j RETURN
-I ISTIO_INBOUND 2 -p tcp -s 127.0.0.6/32 -i lo -j RETURN
-I ISTIO_INBOUND 3 -p tcp -i lo -m mark ! --mark 1338 -j RETURN
COMMIT
";

const TPROXY_CHAINS: &str = "\
* mangle
-N ISTIO_DIVERT
-N ISTIO_TPROXY
-N ISTIO_INBOUND
-A ISTIO_DIVERT -j MARK --set-mark 7
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --tproxy-mark 7/0xffffffff --on-port 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
";

fn tproxy(arguments: &[&str]) -> Settings {
    with(&[&["-m", "TPROXY", "-t", "7"], arguments].concat(), &[])
}

#[test]
fn tproxy_of_all_ports() {
    let settings = tproxy(&["-b", "*", "-d", "15020", "-i", "*"]);
    let expected = format!(
        "{TPROXY_CHAINS}\
         -A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN\n\
         -A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT\n\
         -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY\n\
         {TPROXY_ENDING}"
    );
    assert_lines(&of_table(&v4(&settings), Table::Mangle), &expected);
    assert_lines(&of_table(&v6(&settings), Table::Mangle), &in_v6(&expected));
    // Outbound rules are the usual ones, and the tunnel's port is an exception in `nat` only.
    let nat: String = STOCK_RULES
        .split_inclusive('\n')
        .filter(|line| !line.contains("PREROUTING"))
        .filter(|line| !line.contains("-A ISTIO_INBOUND") || line.contains("15008"))
        .collect();
    assert_lines(&of_table(&v4(&settings), Table::Nat), &nat);
}

#[test]
fn tproxy_of_a_list() {
    let settings = tproxy(&["-b", "80,443"]);
    let taken = |port: u16| {
        let matched = format!("-A ISTIO_INBOUND -p tcp --dport {port}");
        format!(
            "{matched} -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT\n\
             {matched} -j ISTIO_TPROXY\n"
        )
    };
    let taken = [80, 443].map(taken).concat();
    assert_lines(
        &of_table(&v4(&settings), Table::Mangle),
        &format!("{TPROXY_CHAINS}{taken}{TPROXY_ENDING}"),
    );
}

/// The chain exists, and no rule jumps to it.
#[test]
fn tproxy_of_no_ports() {
    let settings = tproxy(&["-b", "", "-c", "net1"]);
    assert_lines(
        &of_table(&v4(&settings), Table::Mangle),
        &format!(
            "* mangle\n\
             -N ISTIO_INBOUND\n\
             -A PREROUTING -i net1 -j RETURN\n\
             -A OUTPUT -o net1 -j RETURN\n\
             {TPROXY_ENDING}"
        ),
    );
}
