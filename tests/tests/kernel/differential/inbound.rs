//! Inbound connections.

use interceptor_testkit::{
    actor::protocol::Protocol,
    scenario::{ConnectMode, Dial, Scenario, differential},
    world::{Role, Setup},
};

const ROWS: &[(&str, &str)] = &[
    ("10.1.0.2:8080", "proxy:15006"),
    ("10.1.0.2:22", "proxy:15006"),
    ("10.1.0.2:81", "proxy:15006"),
    ("10.1.0.2:15001", "proxy:15006"),
    ("10.1.0.2:15006", "proxy:15006"),
    ("10.1.0.2:15008", "app:15008"),
    ("10.1.0.2:15020", "app:15020"),
    ("10.1.0.2:15021", "app:15021"),
    ("10.1.0.2:15090", "app:15090"),
    ("10.1.0.3:8080", "proxy:15006"),
    ("10.1.0.3:15020", "app:15020"),
    ("10.3.0.2:8080", "proxy:15006"),
    ("10.3.0.2:15020", "app:15020"),
    ("[fd00:1::2]:8080", "proxy:15006"),
    ("[fd00:1::2]:22", "proxy:15006"),
    ("[fd00:1::2]:81", "proxy:15006"),
    ("[fd00:1::2]:15001", "proxy:15006"),
    ("[fd00:1::2]:15006", "proxy:15006"),
    ("[fd00:1::2]:15008", "app:15008"),
    ("[fd00:1::2]:15020", "app:15020"),
    ("[fd00:1::2]:15021", "app:15021"),
    ("[fd00:1::2]:15090", "app:15090"),
    ("[fd00:1::3]:8080", "proxy:15006"),
    ("[fd00:3::2]:8080", "proxy:15006"),
    ("[fe80::ff:fe00:102%101]:8080", "proxy:15006"),
    ("[fe80::ff:fe00:102%101]:15020", "app:15020"),
];

fn compare(form: impl Fn(Dial) -> Dial) {
    let scenarios: Vec<_> = ROWS
        .iter()
        .map(|(to, outcome)| Scenario::dial("", outcome, form(Dial::new(Role::Client, to))))
        .collect();
    differential(&Setup::default(), &scenarios);
}

#[test]
fn from_the_link() {
    compare(|dial| dial);
}

#[test]
fn non_blocking() {
    compare(|dial| dial.mode(ConnectMode::NonBlocking));
}

#[test]
fn with_fast_open() {
    compare(|dial| dial.mode(ConnectMode::FastOpen));
}

#[test]
fn over_multipath_tcp() {
    compare(|dial| dial.over(Protocol::Mptcp));
}

#[test]
fn from_further_away() {
    let scenarios = [
        ("10.2.0.9:0", "10.1.0.2:8080", "proxy:15006"),
        ("10.2.0.9:25000", "10.1.0.2:8080", "proxy:15006"),
        ("10.2.0.9:0", "10.1.0.2:15020", "app:15020"),
        ("10.2.0.9:0", "10.3.0.2:8080", "proxy:15006"),
        ("10.66.1.1:0", "10.1.0.2:8080", "EADDRNOTAVAIL"),
        ("[fd00:2::9]:0", "[fd00:1::2]:8080", "proxy:15006"),
        ("[fd00:2::9]:25000", "[fd00:1::2]:8080", "proxy:15006"),
        ("[fd00:2::9]:0", "[fd00:1::2]:15020", "app:15020"),
    ]
    .map(|(from, to, outcome)| {
        let dial = Dial::new(Role::Client, to).from(from);
        Scenario::dial(&format!("from {from}"), outcome, dial)
    });
    differential(&Setup::default(), &scenarios);
}

#[test]
fn while_the_proxy_is_down() {
    let scenarios: Vec<_> = ROWS
        .iter()
        .map(|(to, outcome)| {
            let expected = if outcome.starts_with("proxy") {
                "ECONNREFUSED"
            } else {
                outcome
            };
            Scenario::new(format!("{to} while the proxy is down"), move |run| {
                run.world().stop_proxy()?;
                run.dial(Role::Client, to)?;
                run.expect_outcome(expected);
                Ok(())
            })
        })
        .collect();
    differential(&Setup::default(), &scenarios);
}
