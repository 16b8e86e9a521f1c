//! Istio's rules in a pod are recognized, whatever program wrote them.

use ::interceptor::netns::istio_rules;
use interceptor_testkit::{
    actor::protocol::Family,
    command::{bounded, run},
    lab::{Lab, STOCK},
    netns::Netns,
    rules,
    settings::{Mode, Settings},
};

/// The start of Istio's native rules.
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

/// Other programs' rules, in tables and chains of the same kinds.
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
    netns.enter(istio_rules::are_present).expect("an answer")
}

fn script(mode: Mode, family: Family) -> String {
    let settings = Settings {
        mode,
        ..Settings::default()
    };
    rules::input(&settings, family).expect("rules")
}

#[test]
fn istios_rules_are_found_whatever_wrote_them() {
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
fn other_rules_are_not_mistaken_for_istios() {
    for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
        let netns = Netns::new("pod", None).expect("a netns");
        fed(&netns, program, &[], OTHERS);
        assert!(!are_in(&netns), "{program}");
    }
}

fn others_in(netns: &Netns) -> String {
    let others = netns.enter(istio_rules::others);
    others.expect("a response").join("\n")
}

/// Input of `iptables-restore`, and its description, with the family's name (`FAMILY`).
const MATTERS: [(&str, &str); 4] = [
    (
        "* filter\n:INPUT DROP\nCOMMIT\n",
        "policy drop of FAMILY filter INPUT)",
    ),
    (
        "* filter\n:OUTPUT DROP\nCOMMIT\n",
        "policy drop of FAMILY filter OUTPUT)",
    ),
    (
        "* filter\n:INPUT DROP\n:OUTPUT DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n",
        "policy drop of FAMILY filter INPUT, FAMILY filter OUTPUT)",
    ),
    (
        "* nat\n-N DOCKER\n-A OUTPUT -j DOCKER\nCOMMIT\n",
        "nat rules (FAMILY nat OUTPUT)",
    ),
];

/// Existing tables, and rules that do not conflict with Istio's.
const NO_MATTER: &str = "
* filter
:INPUT ACCEPT
:FORWARD DROP
:OUTPUT ACCEPT
-A INPUT -p tcp --dport 22 -j DROP
COMMIT
* nat
-N DOCKER
-A PREROUTING -j DOCKER
-A POSTROUTING -j MASQUERADE
COMMIT
";

#[test]
fn conflicting_rules_of_others_are_found() {
    for (program, family) in [
        ("iptables-nft-restore", "ip"),
        ("ip6tables-nft-restore", "ip6"),
        ("iptables-legacy-restore", "ip"),
        ("ip6tables-legacy-restore", "ip6"),
    ] {
        for (rules, printed) in MATTERS {
            let netns = Netns::new("pod", None).expect("a netns");
            fed(&netns, program, &[], rules);
            let others = others_in(&netns);
            let printed = printed.replace("FAMILY", family);
            assert!(others.contains(&printed), "{program}: {printed}: {others}");
            assert_eq!(others.lines().count(), 1, "{program}: {others}");
        }
        let netns = Netns::new("pod", None).expect("a netns");
        fed(&netns, program, &[], NO_MATTER);
        assert_eq!(others_in(&netns), "", "{program}");
    }
    let netns = Netns::new("pod", None).expect("a netns");
    let chain = "table inet fw { chain in { type filter hook input priority 0; policy drop; }; }";
    fed(&netns, "nft", &["-f", "-"], chain);
    let others = others_in(&netns);
    assert!(others.contains("policy drop of inet fw in)"), "{others}");
}

/// Querying a table of iptables-legacy creates it in the kernel.
#[test]
fn the_check_changes_nothing() {
    let netns = Netns::new("pod", None).expect("a netns");
    assert!(!are_in(&netns));
    assert_eq!(others_in(&netns), "");
    let [tables, rules] = [
        ("cat", &["/proc/thread-self/net/ip_tables_names"][..]),
        ("nft", &["list", "ruleset"]),
    ]
    .map(|(program, arguments)| {
        let output = netns.enter(|| run(bounded(program).args(arguments), ""));
        output.expect("output")
    });
    assert_eq!((tables.as_str(), rules.as_str()), ("", ""));
}

#[test]
fn attaching_with_conflicting_rules_warns() {
    let lab = Lab::new().expect("a lab");
    let attach = || lab.attach(STOCK).expect("attached");
    let printed = attach();
    assert!(!printed.contains("warning"), "{printed}");
    let rules = [MATTERS[2].0, MATTERS[3].0].concat();
    fed(&lab.pod, "iptables-restore", &["--noflush"], &rules);
    let printed = attach();
    let name = lab.pod.path().display();
    for words in [
        "policy drop of ip filter INPUT, ip filter OUTPUT",
        "nat rules (ip nat OUTPUT)",
    ] {
        let warning = format!("interceptor: warning: {name}: ");
        let matches = |line: &str| line.starts_with(&warning) && line.contains(words);
        assert!(printed.lines().any(matches), "{words}: {printed}");
    }
}

#[test]
fn attaching_with_istios_rules_warns() {
    let lab = Lab::new().expect("a lab");
    let attach = || {
        let output = lab.attach_command(STOCK).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let printed = attach();
    assert!(!printed.contains("Istio"), "{printed}");
    rules::apply(&lab.pod, &Settings::default(), false).expect("rules");
    let printed = attach();
    assert!(printed.contains("Istio's iptables rules"), "{printed}");
    assert!(printed.contains("redirected twice"), "{printed}");
}
