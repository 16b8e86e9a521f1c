//! The first attach on a machine, killed at any point, and the leftovers of other commands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use interceptor_testkit::{
    bpf::{maps::Map, pins},
    interceptor,
    lab::{Killing, Lab, NOTHING, STOCK, all_captured, all_direct},
    machine::Exclusive,
};

use crate::{alone, expect_nothing_left};

const KILLS: u32 = 12;

fn lab(alone: &Exclusive) -> Lab {
    let lab = Lab::alone(alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab
}

fn attach(lab: &Lab) -> Command {
    let mut command = Command::new(interceptor::binary());
    command.arg("attach").arg("--netns").arg(lab.pod.path());
    command.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    command
}

/// Killed where directories, maps and programs are created; another attach and another detach
/// recover.
#[test]
fn a_killed_first_attach() {
    let alone = alone();
    let lab = lab(&alone);
    let before = lab.traces().expect("traces");
    let work = || lab.attach(STOCK).map(drop);
    let mut killing = Killing::measured(work).expect("an attach");
    lab.detach().expect("detached");
    expect_nothing_left();
    for kill in 0..KILLS {
        killing.kill(attach(&lab)).expect("a kill");
        if kill % 2 == 0 {
            lab.attach(STOCK).expect("attached");
            assert_eq!(
                lab.dial_all().expect("dials"),
                all_captured(),
                "{killing:?}"
            );
        }
        lab.detach().expect("detached");
        assert!(!pins::dir().exists(), "{killing:?}");
        let changes = lab.changes_since(&before).expect("traces");
        assert_eq!(changes, NOTHING, "{killing:?}");
        assert_eq!(lab.dial_all().expect("dials"), all_direct(), "{killing:?}");
    }
    assert!(killing.at_work() >= KILLS / 3, "{killing:?}");
    expect_nothing_left();
}

/// The policies with entries, but without being any pod's current policy.
fn orphans() -> Vec<String> {
    let keys = |name: &str| {
        let map = Map::of_interceptor(name).expect("a map").expect(name);
        map.keys().expect("keys")
    };
    let policies = Map::of_interceptor("icept_policies").expect("a map");
    let policies = policies.expect("the policies");
    let in_force: Vec<_> = keys("icept_policies")
        .iter()
        .filter_map(|netns| policies.get(netns).expect("a look-up"))
        .map(|policy| policy[..4].to_vec())
        .collect();
    // In a prefix map the length precedes the key's own bytes.
    let maps = [
        ("icept_ports", 0),
        ("icept_settings", 0),
        ("icept_prefixes", 4),
        ("icept_routes", 4),
    ];
    let mut orphans = Vec::new();
    for (name, offset) in maps {
        for key in keys(name) {
            if !in_force.contains(&key[offset..offset + 4].to_vec()) {
                orphans.push(format!("{name}: {key:?}"));
            }
        }
    }
    orphans
}

/// The map entries of a killed attach are deleted by the next command, while another pod stays
/// attached.
#[test]
fn lists_of_killed_attaches_are_swept() {
    let alone = alone();
    let (steady, lab) = (lab(&alone), lab(&alone));
    steady.attach(STOCK).expect("attached");
    lab.attach(STOCK).expect("attached");
    let work = || lab.attach(&["-i", "*"]).map(drop);
    let mut killing = Killing::measured(work).expect("an attach");
    for kill in 0..KILLS {
        let excluded = (1000 + kill).to_string();
        let flags = [STOCK, &["-o", &excluded, "-x", "192.0.2.0/24"]].concat();
        lab.attach(&flags).expect("attached");
        killing.kill(attach(&lab)).expect("a kill");
    }
    assert!(killing.at_work() >= KILLS / 3, "{killing:?}");
    steady.attach(STOCK).expect("attached");
    assert_eq!(orphans(), NOTHING);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.detach().expect("detached");
    assert_eq!(orphans(), NOTHING);
    assert_eq!(steady.dial_all().expect("dials"), all_captured());
}

/// A state that a killed command can leave behind.
struct PartialState {
    name: &'static str,
    make: fn(&Path),
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        if path.is_dir() {
            fs::remove_dir_all(path).expect("a directory");
        } else {
            fs::remove_file(path).expect("a pin");
        }
    }
}

const PARTIAL_STATES: [PartialState; 5] = [
    PartialState {
        name: "empty directories",
        make: |layout| {
            remove(&[layout.to_owned()]);
            for dir in ["maps", "programs", "cgroups", "netns"] {
                fs::create_dir_all(layout.join(dir)).expect("a directory");
            }
        },
    },
    PartialState {
        name: "nothing below the layout",
        make: |layout| {
            remove(&[layout.to_owned()]);
            fs::create_dir_all(layout).expect("a directory");
        },
    },
    PartialState {
        name: "some maps",
        make: |_| {
            let maps = ["icept_policies", "icept_stand_ins", "icept_listeners"];
            remove(&maps.map(pins::map));
        },
    },
    PartialState {
        name: "no maps",
        make: |layout| remove(&[layout.join("maps")]),
    },
    PartialState {
        name: "no programs",
        make: |layout| remove(&[layout.join("programs")]),
    },
];

/// Whatever is missing: the next attach captures, and the next detach leaves nothing.
#[test]
fn partial_state_is_completed_or_removed() {
    let alone = alone();
    let lab = lab(&alone);
    let before = lab.traces().expect("traces");
    for PartialState { name, make } in PARTIAL_STATES {
        for attach_first in [true, false] {
            lab.attach(STOCK).expect("attached");
            make(&pins::dir());
            if attach_first {
                lab.attach(STOCK)
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
                assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{name}");
            }
            lab.detach()
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!(lab.dial_all().expect("dials"), all_direct(), "{name}");
            let changes = lab.changes_since(&before).expect("traces");
            assert_eq!(changes, NOTHING, "{name}");
            expect_nothing_left();
        }
    }
}
