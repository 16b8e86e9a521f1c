//! Packets with a known result.

use super::{Firewall, Hook, LOOPBACK, Outcome, Packet, Protocol, State, Table};
use crate::{
    actor::protocol::Family,
    rules::input,
    settings::{Dns, Mode, Settings},
};

fn firewall(settings: &Settings, family: Family) -> Firewall {
    Firewall::load(&input(settings, family).unwrap())
}

/// Reads `tcp 10.1.0.5:40000 > 10.2.0.9:80 out eth0 owner 1000/1000`.
fn packet(text: &str) -> (Hook, Packet<'_>) {
    let words: Vec<_> = text.split(' ').collect();
    let [
        protocol,
        source,
        ">",
        destination,
        direction,
        interface,
        ref facts @ ..,
    ] = words[..]
    else {
        panic!("unreadable: {text}");
    };
    let (source, source_port) = end(source);
    let (destination, port) = end(destination);
    let mut packet = Packet {
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => panic!("unreadable: {text}"),
        },
        source,
        source_port,
        destination,
        port,
        interface,
        owner: None,
        state: State::New,
        mark: 0,
        connmark: 0,
        zone: None,
    };
    let mut facts = facts.iter();
    while let Some(fact) = facts.next() {
        let mut value = || *facts.next().expect("a value");
        match *fact {
            "owner" => {
                let (uid, gid) = value().split_once('/').unwrap();
                packet.owner = Some((uid.parse().unwrap(), gid.parse().unwrap()));
            }
            "mark" => packet.mark = value().parse().unwrap(),
            "connmark" => packet.connmark = value().parse().unwrap(),
            "established" => packet.state = State::Established,
            "invalid" => packet.state = State::Invalid,
            _ => panic!("unreadable: {text}"),
        }
    }
    let hook = match direction {
        "in" => Hook::Prerouting,
        "out" => Hook::Output,
        _ => panic!("unreadable: {text}"),
    };
    (hook, packet)
}

/// An address and a port, any if there is none.
fn end(text: &str) -> (std::net::IpAddr, u16) {
    let address = text.parse::<std::net::SocketAddr>();
    address.map_or_else(
        |_| (text.trim_matches(['[', ']']).parse().unwrap(), 40000),
        |address| (address.ip(), address.port()),
    )
}

/// The result of a packet at its hook, in the words of the rows.
fn fate(settings: &Settings, text: &str) -> String {
    let (hook, mut packet) = packet(text);
    let family = if packet.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let outcome = firewall(settings, family).pass_tables(hook, &Table::ALL, &mut packet);
    let mark = (outcome == Outcome::Pass && packet.mark != 0).then_some(packet.mark);
    let mark = mark.map_or(String::new(), |mark| format!(" mark={mark}"));
    let zone = packet
        .zone
        .map_or(String::new(), |zone| format!(" zone={zone}"));
    show(outcome) + &mark + &zone
}

fn show(outcome: Outcome) -> String {
    match outcome {
        Outcome::Pass => "PASS".to_owned(),
        Outcome::Redirect(port) => format!("REDIRECT:{port}"),
        Outcome::Tproxy(port) => format!("TPROXY:{port}"),
        Outcome::Drop => "DROP".to_owned(),
    }
}

#[track_caller]
fn check(settings: &Settings, rows: &[&str]) {
    for row in rows {
        let (packet, expected) = row.split_once(" => ").unwrap();
        assert_eq!(fate(settings, packet), expected, "{packet}");
    }
}

#[test]
fn the_stock_pod() {
    check(
        &Settings::default(),
        &[
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 1000/1000 => REDIRECT:15001",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1000/1000 => PASS",
            "tcp 127.0.0.1 > 127.0.0.1:80 out lo owner 1000/1000 => PASS",
            "tcp 127.0.0.1 > 127.0.0.6:15002 out lo owner 1000/1000 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 1337/1337 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1337/1337 => REDIRECT:15006",
            "tcp 127.0.0.1 > 127.0.0.1:80 out lo owner 1337/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.6:15002 out lo owner 1337/1337 => REDIRECT:15006",
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 0/1337 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 0/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.1:80 out lo owner 0/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.6:15002 out lo owner 0/1337 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 => REDIRECT:15001",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo => PASS",
            "tcp 127.0.0.1 > 127.0.0.1:80 out lo => PASS",
            "tcp 127.0.0.1 > 127.0.0.6:15002 out lo => PASS",
            "tcp 127.0.0.6 > 10.1.0.5:80 out lo owner 1337/1337 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:15008 out lo owner 1337/1337 => PASS",
            "udp 10.1.0.5 > 10.2.0.9:443 out eth0 owner 1000/1000 => PASS",
            "tcp [fd00::5] > [fd00::9]:80 out eth0 owner 1000/1000 => REDIRECT:15001",
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 => REDIRECT:15006",
            "tcp 10.2.0.9 > 10.1.0.5:15008 in eth0 => PASS",
            "tcp 10.2.0.9 > 10.1.0.5:15020 in eth0 => PASS",
            "tcp 10.2.0.9 > 10.1.0.5:15021 in eth0 => PASS",
            "tcp 10.2.0.9 > 10.1.0.5:15090 in eth0 => PASS",
            "tcp 10.2.0.9 > 10.1.0.5:15001 in eth0 => REDIRECT:15006",
            "tcp 10.2.0.9 > 10.1.0.5:15006 in eth0 => REDIRECT:15006",
            "tcp 10.2.0.9 > 10.1.0.5:22 in eth0 => REDIRECT:15006",
        ],
    );
}

fn dns() -> Settings {
    Settings {
        dns: Dns::All,
        ..Settings::default()
    }
}

#[test]
fn dns_capture() {
    check(
        &dns(),
        &[
            "udp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 1000/1000 => REDIRECT:15053 zone=2",
            "udp 127.0.0.1 > 127.0.0.53:53 out lo owner 1000/1000 => REDIRECT:15053 zone=2",
            "udp 127.0.0.1 > 127.0.0.1:53 out lo owner 1000/1000 => REDIRECT:15053 zone=2",
            "tcp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 1000/1000 => REDIRECT:15053",
            "tcp 127.0.0.1 > 127.0.0.53:53 out lo owner 1000/1000 => REDIRECT:15053",
            "tcp 127.0.0.1 > 127.0.0.1:53 out lo owner 1000/1000 => REDIRECT:15053",
            "udp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 1337/1337 => PASS zone=1",
            "udp 127.0.0.1 > 127.0.0.53:53 out lo owner 1337/1337 => PASS zone=1",
            "udp 127.0.0.1 > 127.0.0.1:53 out lo owner 1337/1337 => PASS zone=1",
            "tcp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 1337/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.53:53 out lo owner 1337/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.1:53 out lo owner 1337/1337 => PASS",
            "udp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 0/1337 => PASS zone=1",
            "udp 127.0.0.1 > 127.0.0.53:53 out lo owner 0/1337 => PASS zone=1",
            "udp 127.0.0.1 > 127.0.0.1:53 out lo owner 0/1337 => PASS zone=1",
            "tcp 10.1.0.5 > 10.96.0.10:53 out eth0 owner 0/1337 => PASS",
            "tcp 127.0.0.1 > 127.0.0.53:53 out lo owner 0/1337 => REDIRECT:15006",
            "tcp 127.0.0.1 > 127.0.0.1:53 out lo owner 0/1337 => PASS",
            "udp 127.0.0.1:15053 > 127.0.0.1 out lo owner 1337/1337 => PASS zone=2",
            "udp 10.96.0.10:53 > 10.1.0.5 in eth0 => PASS zone=1",
        ],
    );
}

/// Conntrack zones remain.
#[test]
fn an_excluded_dns_port_is_not_captured() {
    let settings = Settings {
        outbound_excluded_ports: "53",
        ..dns()
    };
    check(
        &settings,
        &["udp 10.1.0.5:4 > 10.96.0.10:53 out eth0 owner 1000/1000 => PASS zone=2"],
    );
}

#[test]
fn an_excluded_dns_server_is_captured() {
    let settings = Settings {
        outbound_excluded_cidrs: "10.96.0.0/16",
        ..dns()
    };
    check(
        &settings,
        &["udp 10.1.0.5:4 > 10.96.0.10:53 out eth0 owner 1000/1000 => REDIRECT:15053 zone=2"],
    );
}

fn tproxy() -> Settings {
    Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    }
}

#[test]
fn transparent_capture() {
    check(
        &tproxy(),
        &[
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 => TPROXY:15006",
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 established => PASS mark=1337",
            "tcp 10.2.0.9 > 10.1.0.5:15008 in eth0 => TPROXY:15006",
            "tcp 10.2.0.9 > 10.1.0.5:15020 in eth0 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 in lo => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 in lo mark 1338 => TPROXY:15006",
            "tcp 127.0.0.6 > 10.1.0.5:80 in lo mark 1338 => PASS mark=1338",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 0/1337 => PASS mark=1338",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1000/1000 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:33333 out eth0 owner 1000/1000 established connmark 1337 => PASS mark=1337",
        ],
    );
}

#[test]
fn only_the_first_of_two_uids_is_captured_to_itself() {
    let settings = Settings {
        uids: "3,4",
        gids: "1,2",
        ..Settings::default()
    };
    check(
        &settings,
        &[
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 3/99 => REDIRECT:15006",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 4/99 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 4/99 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 9/2 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 9/2 => PASS",
        ],
    );
}

#[test]
fn an_included_loopback_cidr() {
    let settings = Settings {
        outbound_cidrs: "127.1.2.3/32",
        ..Settings::default()
    };
    check(
        &settings,
        &[
            "tcp 127.0.0.1 > 127.1.2.3:80 out lo owner 1000/1000 => REDIRECT:15001",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1000/1000 => PASS",
        ],
    );
}

#[test]
fn included_ports() {
    let settings = Settings {
        outbound_ports: "80",
        outbound_cidrs: "",
        ..Settings::default()
    };
    let row = "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 1000/1000";
    assert_eq!(fate(&settings, row), "REDIRECT:15001");
    let excluded = Settings {
        outbound_excluded_cidrs: "10.2.0.0/16",
        ..settings.clone()
    };
    assert_eq!(fate(&excluded, row), "PASS");
    let none = Settings {
        outbound_ports: "",
        ..settings
    };
    assert_eq!(fate(&none, row), "PASS");
}

#[test]
fn owner_groups() {
    let row = |gid| format!("tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 5/{gid}");
    for (owner_groups, gid, expected) in [
        ("101,202", 202, "REDIRECT:15001"),
        ("101,202", 7, "PASS"),
        ("", 7, "PASS"),
    ] {
        let settings = Settings {
            owner_groups,
            ..Settings::default()
        };
        assert_eq!(fate(&settings, &row(gid)), expected);
    }
}

fn rerouted() -> Settings {
    Settings {
        rerouted_interfaces: "docker0",
        outbound_excluded_cidrs: "10.2.0.0/16",
        outbound_excluded_ports: "80",
        ..dns()
    }
}

/// Only the destination matters there.
#[test]
fn rerouted_interfaces() {
    check(
        &rerouted(),
        &[
            "tcp 172.17.0.2 > 10.2.0.9:80 in docker0 => REDIRECT:15001",
            "udp 172.17.0.2 > 10.96.0.10:53 in docker0 => PASS",
            "tcp 172.17.0.2 > 10.2.0.9:80 in eth0 => REDIRECT:15006",
        ],
    );
    let listed = Settings {
        outbound_cidrs: "10.96.0.0/16",
        ..rerouted()
    };
    check(
        &listed,
        &[
            "tcp 172.17.0.2 > 10.2.0.9:80 in docker0 => PASS",
            "tcp 172.17.0.2 > 10.96.0.10:80 in docker0 => REDIRECT:15001",
        ],
    );
}

#[test]
fn excluded_interfaces() {
    for mode in [Mode::Redirect, Mode::Tproxy] {
        let settings = Settings {
            excluded_interfaces: "net1",
            mode,
            ..Settings::default()
        };
        check(
            &settings,
            &[
                "tcp 10.2.0.9 > 10.1.0.5:80 in net1 => PASS",
                "tcp 10.1.0.5 > 10.2.0.9:80 out net1 owner 1000/1000 => PASS",
                "tcp 10.1.0.5 > 10.2.0.9:80 out net10 owner 1000/1000 => REDIRECT:15001",
            ],
        );
    }
}

#[test]
fn inbound_ports() {
    let listed = Settings {
        inbound_ports: "8080,15020",
        inbound_excluded_ports: "15020",
        ..Settings::default()
    };
    check(
        &listed,
        &[
            "tcp 10.2.0.9 > 10.1.0.5:8080 in eth0 => REDIRECT:15006",
            "tcp 10.2.0.9 > 10.1.0.5:15020 in eth0 => REDIRECT:15006",
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 => PASS",
        ],
    );
    let none = Settings {
        inbound_ports: "",
        ..Settings::default()
    };
    check(
        &none,
        &[
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 => PASS",
            "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1337/1337 => REDIRECT:15006",
        ],
    );
}

#[test]
fn invalid_packets() {
    let settings = Settings {
        drop_invalid: true,
        ..Settings::default()
    };
    let rows = [
        "tcp 10.2.0.9 > 10.1.0.5:15020 in eth0 invalid => DROP",
        "udp 10.2.0.9 > 10.1.0.5:80 in eth0 invalid => DROP",
        "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 => REDIRECT:15006",
    ];
    check(&settings, &rows);
    assert_eq!(
        fate(
            &Settings::default(),
            "tcp 10.2.0.9 > 10.1.0.5:80 in eth0 invalid"
        ),
        "PASS"
    );
}

/// A packet sent over `lo` is received again, for which only TPROXY has rules.
#[test]
fn packets_over_lo_meet_both_hooks() {
    let send = |settings: &Settings, text| {
        let (_, mut packet) = packet(text);
        assert_eq!(packet.interface, LOOPBACK);
        show(firewall(settings, Family::V4).send(&mut packet))
    };
    let root_proxy = "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 0/1337";
    let own_proxy = "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1337/0";
    let app = "tcp 10.1.0.5 > 10.1.0.5:80 out lo owner 1000/1000";
    assert_eq!(send(&tproxy(), root_proxy), "TPROXY:15006");
    // Now it is sent to localhost, which TPROXY passes.
    assert_eq!(send(&tproxy(), own_proxy), "REDIRECT:15006");
    assert_eq!(send(&tproxy(), app), "PASS");
    assert_eq!(send(&Settings::default(), root_proxy), "PASS");
}

#[test]
fn names_and_ranges_have_iptables_notation() {
    let settings = Settings {
        uids: "2000-3000",
        excluded_interfaces: "cali+",
        outbound_excluded_ports: "8000:8010,:3",
        ..Settings::default()
    };
    check(
        &settings,
        &[
            "tcp 10.1.0.5 > 10.2.0.9:80 out eth0 owner 2500/1 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:80 out cali7 owner 1/1 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:8005 out eth0 owner 1/1 => PASS",
            "udp 10.1.0.5 > 10.2.0.9:2 out eth0 owner 1/1 => PASS",
            "tcp 10.1.0.5 > 10.2.0.9:8011 out eth0 owner 1/1 => REDIRECT:15001",
        ],
    );
}

#[test]
#[should_panic(expected = "unknown match --suppl-groups")]
fn an_unknown_match_or_target_panics() {
    let _firewall =
        Firewall::load("* nat\n-A OUTPUT -m owner --suppl-groups x -j RETURN\nCOMMIT\n");
}
