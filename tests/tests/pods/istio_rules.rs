//! Istio's rules in a pod are known, by whatever they were written.

use ::interceptor::netns::istio_rules;
use interceptor_tests::{
    agent::protocol::Family,
    command::{bounded, run},
    lab::{Lab, STOCK},
    netns::Netns,
    rules,
    settings::{Mode, Settings},
};

/// As Istio's native rules begin.
const BY_NFT: &str = "
table inet istio-proxy-nat {
    chain output {
        type nat hook output priority -100; policy accept;
        jump istio-output
    }
    chain istio-output {
        meta skuid 1337 return
    }
}
";

/// What other people have, in tables and chains of the same kinds.
const OTHERS: &str = "
* nat
-N DOCKER
-N MY_ISTIO_OUTPUT
-A OUTPUT -j DOCKER
COMMIT
";

fn fed(netns: &Netns, program: &str, arguments: &[&str], input: &str) {
    let fed = netns.enter(|| run(bounded(program).args(arguments), input));
    fed.expect("rules");
}

fn are_in(netns: &Netns) -> bool {
    netns.enter(istio_rules::are_here).expect("an answer")
}

fn script(mode: Mode, family: Family) -> String {
    let settings = Settings {
        mode,
        ..Settings::default()
    };
    rules::input(&settings, family).expect("rules")
}

#[test]
fn istios_rules_are_found_by_whatever_they_were_written() {
    for (program, family) in [
        ("iptables-nft-restore", Family::V4),
        ("ip6tables-nft-restore", Family::V6),
        ("iptables-legacy-restore", Family::V4),
        ("ip6tables-legacy-restore", Family::V6),
    ] {
        for mode in [Mode::Redirect, Mode::Tproxy] {
            let netns = Netns::new("pod", None).expect("a netns");
            fed(&netns, program, &[], &script(mode, family));
            assert!(are_in(&netns), "{program} {mode:?}");
        }
    }
    let netns = Netns::new("pod", None).expect("a netns");
    fed(&netns, "nft", &["-f", "-"], BY_NFT);
    assert!(are_in(&netns));
}

#[test]
fn other_peoples_rules_are_not_taken_for_istios() {
    for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
        let netns = Netns::new("pod", None).expect("a netns");
        fed(&netns, program, &[], OTHERS);
        assert!(!are_in(&netns), "{program}");
    }
}

/// To ask iptables-legacy's part of the kernel for a table makes it.
#[test]
fn looking_changes_nothing() {
    let netns = Netns::new("pod", None).expect("a netns");
    assert!(!are_in(&netns));
    let [tables, rules] = [
        ("cat", &["/proc/thread-self/net/ip_tables_names"][..]),
        ("nft", &["list", "ruleset"]),
    ]
    .map(|(program, arguments)| {
        let told = netns.enter(|| run(bounded(program).args(arguments), ""));
        told.expect("told")
    });
    assert_eq!((tables.as_str(), rules.as_str()), ("", ""));
}

#[test]
fn who_attaches_beside_istios_rules_by_hand_is_told() {
    let lab = Lab::new().expect("a lab");
    let attach = || {
        let output = lab.attach_command(STOCK).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = attach();
    assert!(!said.contains("Istio"), "{said}");
    rules::apply(&lab.pod, &Settings::default(), false).expect("rules");
    let said = attach();
    assert!(said.contains("Istio's iptables rules"), "{said}");
    assert!(said.contains("captured twice"), "{said}");
}
