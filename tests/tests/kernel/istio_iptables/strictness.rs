//! The accepted values of flags: those that iptables accepts in istio-iptables' rules, with the
//! same meaning. Values that iptables accepts and Interceptor refuses are listed in
//! docs/settings.md.

use clap::Parser;
use interceptor::settings::{IstioFlags, Settings};
use interceptor_testkit::{
    command::{bounded, output, run},
    machine,
    netns::Netns,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: IstioFlags,
}

/// A flag whose value becomes part of rules: istio-iptables' rules, and Interceptor's parsed
/// settings.
struct Subject {
    flag: &'static str,
    rule: &'static str,
    items: fn(&Settings) -> Vec<String>,
}

fn shown(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

const PORTS: Subject = Subject {
    flag: "-o",
    rule: "-p tcp --dport ITEM -j RETURN",
    items: |settings| shown(&settings.outbound_ports_exclude),
};

const LISTENER: Subject = Subject {
    flag: "-p",
    rule: "-p tcp -j REDIRECT --to-ports ITEM",
    items: |settings| shown(&[settings.outbound_port]),
};

const OWNERS: Subject = Subject {
    flag: "-u",
    rule: "-m owner --uid-owner ITEM -j RETURN",
    items: |settings| shown(settings.proxy_uids.as_slice()),
};

const INTERFACES: Subject = Subject {
    flag: "-c",
    rule: "-o ITEM -j RETURN",
    items: |settings| shown(&settings.excluded_interfaces),
};

impl Subject {
    /// Interceptor's parsed items, if it accepts the value.
    fn ours(&self, value: &str) -> Option<Vec<String>> {
        let line = Line::try_parse_from(["attach", &format!("{}={value}", self.flag)]).ok()?;
        let parsed = Settings::from_flags_and(&line.flags, &|_| None, None).ok()?;
        Some((self.items)(&parsed.settings))
    }

    /// iptables' rules with such items, if it accepts them.
    fn rules(&self, netns: &Netns, items: &[impl AsRef<str>]) -> Option<String> {
        let rule = |item: &str| format!("-A OUTPUT {}\n", self.rule.replace("ITEM", item));
        let rules = items.iter().map(|item| rule(item.as_ref()));
        let input = format!("*nat\n{}COMMIT\n", rules.collect::<String>());
        netns
            .enter(|| {
                let restored = output(&mut bounded("iptables-restore"), &input)?;
                if !restored.status.success() {
                    return Ok(None);
                }
                let saved = run(bounded("iptables-save").args(["-t", "nat"]), "")?;
                let rules = saved.lines().filter(|line| line.starts_with("-A"));
                Ok(Some(rules.collect::<Vec<_>>().join("\n")))
            })
            .expect("iptables")
    }

    /// The same for a value, as istio-iptables splits it.
    fn theirs(&self, netns: &Netns, value: &str) -> Option<String> {
        let items = value.split(',').filter(|item| !item.is_empty());
        self.rules(netns, &items.collect::<Vec<_>>())
    }

    /// The rules of the parsed items.
    fn made(&self, netns: &Netns, value: &str) -> Option<String> {
        self.rules(netns, &self.ours(value)?)
    }
}

#[test]
fn values_are_accepted_as_by_iptables() {
    let _shared = machine::shared().expect("the machine");
    let netns = Netns::new("strict", None).expect("a network namespace");
    let cases: [(&Subject, &[&str]); 4] = [
        (
            &PORTS,
            &[
                "80",
                "0",
                "80,443",
                "80, 443",
                " 80",
                "80\t",
                ",80,,",
                "8000:8010",
                "1:",
                ":9",
                "08080",
                "0080",
                "65536",
                "80,x",
                " ",
                "80, ,443",
                "80 90",
                "1: 2",
                "80\n",
                "\n80",
                "\u{a0}80",
                "-80",
                "9:8",
                "*",
                "80-90",
                "'80'",
            ],
        ),
        (&LISTENER, &["15001", "65536", "x", "08"]),
        (
            &OWNERS,
            &[
                "0",
                "5,root",
                "5, root",
                " 5",
                " ",
                "5,\t",
                "08",
                "-1",
                "4294967295",
                "no-such",
            ],
        ),
        (
            &INTERFACES,
            &["net1", "net1, eth+", "\tnet1 ", " ", "net1, ,net2", "a b"],
        ),
    ];
    for (subject, values) in cases {
        for value in values {
            let theirs = subject.theirs(&netns, value);
            let made = subject.made(&netns, value);
            assert_eq!(made, theirs, "{} {value:?}", subject.flag);
        }
    }
}

/// The list of docs/settings.md, "Where it is stricter".
#[test]
fn only_the_listed_values_are_stricter() {
    let _shared = machine::shared().expect("the machine");
    let netns = Netns::new("strict", None).expect("a network namespace");
    let cases: [(&Subject, &[&str]); 4] = [
        // 010 is 8 to iptables.
        (
            &PORTS,
            &[
                "http",
                "010",
                "00",
                "+80",
                "0x50",
                "80:+90",
                "\"80\"",
                "80 -s 10.0.0.1",
                "\r80",
            ],
        ),
        (&LISTENER, &["0", "015001", "0x10", "+5", "1-2", " 15001"]),
        (&OWNERS, &["01337", "0x10", "+5", "1-2"]),
        (
            &INTERFACES,
            &["a/b", "a:b", "!", "-eth", "..", "eth0\r", "\"a b\""],
        ),
    ];
    for (subject, values) in cases {
        for value in values {
            let name = subject.flag;
            assert!(subject.theirs(&netns, value).is_some(), "{name} {value:?}");
            assert_eq!(subject.ours(value), None, "{name} {value:?}");
        }
    }
}

/// No value is accepted that iptables refuses or parses otherwise.
#[test]
fn no_value_is_parsed_otherwise_than_by_iptables() {
    let _shared = machine::shared().expect("the machine");
    let netns = Netns::new("strict", None).expect("a network namespace");
    let items = prop_oneof![
        "[ \t]{0,2}[0-9]{1,5}[ \t]{0,2}",
        "[0-9]{0,5}:[0-9]{0,5}",
        "[-+0-9a-fx:. \t]{0,6}",
        "[a-z]{1,3}[0-9+]?",
    ];
    let values = prop::collection::vec(items, 1..4).prop_map(|items| items.join(","));
    let subjects = prop::sample::select(vec![0, 1, 2, 3]);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(150)
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(subjects, values), |(subject, value)| {
        // An empty value is the default.
        prop_assume!(!value.is_empty());
        let subject = [&PORTS, &LISTENER, &OWNERS, &INTERFACES][subject];
        if let Some(made) = subject.made(&netns, &value) {
            prop_assert_eq!(Some(made), subject.theirs(&netns, &value));
        }
        Ok(())
    });
    result.expect("iptables' rules");
}
