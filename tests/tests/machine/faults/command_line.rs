//! Faults of the commands that attach and detach.

use interceptor_testkit::{
    bpf::pins,
    faults::{Fault, Recorded},
    interceptor::binary,
    lab::{STOCK, TPROXY},
};

use super::{Trial, chosen, pinned, scene::Scene};
use crate::{alone, expect_nothing_left};

/// The chosen faults of calls that the other run does not make.
fn chosen_without(recorded: &Recorded, other: &Recorded) -> Vec<Fault> {
    let others = other.first_faults();
    let mut faults = chosen(recorded);
    faults.retain(|fault| others.iter().all(|other| other.call != fault.call));
    faults
}

/// A pod that forwards is attached beside another one.
#[test]
fn a_call_of_an_attach_fails() {
    let alone = alone();
    let (steady, scene) = (Scene::new(&alone), Scene::that_forwards(&alone));
    steady.attach(STOCK);
    scene.attach(STOCK);
    scene.lab.detach().expect("detached");
    // With the programs of pods that forward.
    let before = pinned();
    let trial = Trial {
        name: "attach",
        program: &binary(),
        arguments: scene.attach_arguments(STOCK),
        prepare: &|| (),
        check: &|run| {
            let is_captured = scene.is_captured(run);
            assert!(is_captured || !run.has_succeeded(), "{run}");
            assert!(steady.is_captured(run), "the other pod: {run}");
            if is_captured || pinned() != before || !scene.is_untouched() {
                scene.expect_attach(STOCK, run);
                scene.expect_detach(run);
                assert!(steady.is_captured(run), "the other pod: {run}");
                assert_eq!(pinned(), before, "{run}");
            }
        },
    };
    let recorded = trial.record();
    scene.lab.detach().expect("detached");
    trial.inject(&chosen(&recorded));
    drop((scene, steady));
    expect_nothing_left();
}

/// Whether a call reads what an attach must know: which pins exist, whether the pod forwards, and what
/// the kernel responds about interfaces, addresses, routes and rules. (An attach only warns if it cannot
/// list the chains of `nf_tables`, whose messages have larger numbers.)
fn reads_state(fault: &Fault) -> bool {
    const LONGEST: usize = "netlink message ".len() + 2;
    let subject = &fault.call.subject;
    let pins = ["/unfinished", "/icept_policies-#", "/icept_lookup"];
    let is_pin = fault.call.name == "statx" && pins.iter().any(|pin| subject.ends_with(pin));
    let is_message = subject.starts_with("netlink message") && subject.len() <= LONGEST;
    // Without the size of a file, it is read all the same.
    let is_sysctl = fault.call.name != "statx" && subject.ends_with("/forwarding");
    is_pin || is_message || is_sysctl
}

/// Pins, sysctls, interfaces and routes that cannot be read are not taken for missing ones: the attach
/// fails, and the other pod stays captured.
#[test]
fn an_error_is_not_taken_for_an_absence() {
    let alone = alone();
    let (steady, scene) = (Scene::new(&alone), Scene::that_forwards(&alone));
    steady.attach(STOCK);
    let trial = Trial {
        name: "reading the state",
        program: &binary(),
        arguments: scene.attach_arguments(STOCK),
        prepare: &|| (),
        check: &|run| {
            assert!(!run.has_succeeded() || !run.is_reached, "{run}");
            assert!(steady.is_captured(run), "the other pod: {run}");
            if scene.is_captured(run) {
                scene.expect_detach(run);
            }
        },
    };
    let mut faults = trial.record().first_faults();
    scene.lab.detach().expect("detached");
    faults.retain(reads_state);
    assert!(faults.len() > 10, "{faults:#?}");
    trial.inject(&faults);
    drop((scene, steady));
    expect_nothing_left();
}

/// Programs and maps are created. Only calls that no other attach makes fail.
#[test]
fn a_call_of_the_first_attach_fails() {
    let alone = alone();
    let scene = Scene::new(&alone);
    let trial = Trial {
        name: "first attach",
        program: &binary(),
        arguments: scene.attach_arguments(STOCK),
        prepare: &|| (),
        check: &|run| {
            let is_captured = scene.is_captured(run);
            assert!(is_captured || !run.has_succeeded(), "{run}");
            if is_captured || pins::dir().exists() || !scene.is_untouched() {
                scene.expect_attach(STOCK, run);
                scene.expect_detach(run);
                assert!(!pins::dir().exists(), "{run}");
            }
        },
    };
    let recorded = trial.record();
    let next = trial.record();
    scene.lab.detach().expect("detached");
    trial.inject(&chosen_without(&recorded, &next));
    drop(scene);
    expect_nothing_left();
}

/// The old and the new settings capture the same connections.
#[test]
fn a_call_of_a_replacement_fails() {
    let alone = alone();
    let (steady, scene) = (Scene::new(&alone), Scene::new(&alone));
    steady.attach(STOCK);
    scene.attach(STOCK);
    let redirecting = scene.lab.traces().expect("traces");
    let tproxy = [STOCK, TPROXY].concat();
    for (name, old, new) in [
        ("replacement by TPROXY", STOCK, &tproxy[..]),
        ("replacement by REDIRECT", &tproxy[..], STOCK),
    ] {
        let trial = Trial {
            name,
            program: &binary(),
            arguments: scene.attach_arguments(new),
            prepare: &|| scene.attach(old),
            check: &|run| {
                assert!(scene.is_captured(run), "{run}");
                assert!(steady.is_captured(run), "the other pod: {run}");
                scene.expect_attach(STOCK, run);
                let now = scene.lab.traces().expect("traces");
                assert_eq!(now.network, redirecting.network, "{run}");
            },
        };
        let recorded = trial.record();
        trial.inject(&chosen(&recorded));
    }
    drop((scene, steady));
    expect_nothing_left();
}

/// Of one of two pods.
#[test]
fn a_call_of_a_detach_fails() {
    let alone = alone();
    let (steady, scene) = (Scene::new(&alone), Scene::new(&alone));
    steady.attach(STOCK);
    let before = pinned();
    let flags = [STOCK, TPROXY].concat();
    let trial = Trial {
        name: "detach",
        program: &binary(),
        arguments: scene.arguments("detach"),
        prepare: &|| scene.attach(&flags),
        check: &|run| {
            let is_captured = scene.is_captured(run);
            assert!(!is_captured || !run.has_succeeded(), "{run}");
            assert!(steady.is_captured(run), "the other pod: {run}");
            scene.expect_detach(run);
            assert!(steady.is_captured(run), "the other pod: {run}");
            assert_eq!(pinned(), before, "{run}");
        },
    };
    let recorded = trial.record();
    trial.inject(&chosen(&recorded));
    drop((scene, steady));
    expect_nothing_left();
}

/// Everything is removed. Only calls that no other detach makes fail.
#[test]
fn a_call_of_the_last_detach_fails() {
    let alone = alone();
    let scene = Scene::new(&alone);
    let trial = Trial {
        name: "last detach",
        program: &binary(),
        arguments: scene.arguments("detach"),
        prepare: &|| scene.attach(STOCK),
        check: &|run| {
            assert!(!scene.is_captured(run) || !run.has_succeeded(), "{run}");
            scene.expect_detach(run);
            assert!(!pins::dir().exists(), "{run}");
        },
    };
    let recorded = trial.record();
    let other = Scene::new(&alone);
    other.attach(STOCK);
    let next = trial.record();
    drop(other);
    trial.inject(&chosen_without(&recorded, &next));
    drop(scene);
    expect_nothing_left();
}
