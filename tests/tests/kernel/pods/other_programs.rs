//! Other vendors' programs on the same cgroups and in the same network namespace.

use std::fs::File;

use interceptor_testkit::{
    actor::protocol::{Level, Request},
    bpf::programs::{Action, AttachType, Link, Mode, Program},
    lab::{Lab, STOCK, all_captured, all_direct, call},
};

/// The number of their runs depends only on the calls. (The calls for a socket's names depend on
/// the server that responds, so those are not among them.)
const COUNTABLE: [AttachType; 4] = [
    AttachType::Connect4,
    AttachType::Connect6,
    AttachType::GetSockOpt,
    AttachType::SocketCreate,
];

fn load(attach_type: AttachType) -> Program {
    Program::load("foreign", attach_type, Action::CountOnly).expect("a program")
}

/// Makes calls of every kind, the same each time.
fn make_calls(lab: &Lab) -> Vec<String> {
    let responses = lab.dial_all().expect("dials");
    let (socket, _) = call(&lab.app, "10.2.0.9:80").expect("a call");
    for request in [
        Request::PeerName { socket },
        Request::LocalName { socket },
        Request::OriginalDestination {
            socket,
            level: Level::Ip,
            length: 16,
        },
    ] {
        lab.app.call(&request).expect("a reply");
    }
    lab.app.must(&Request::CloseAll).expect("closed");
    responses
}

/// The runs of each program since the last call.
fn runs_of(programs: &[Program], work: impl FnOnce()) -> Vec<u64> {
    let runs = || programs.iter().map(|program| program.runs().unwrap());
    let before: Vec<_> = runs().collect();
    work();
    runs()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect()
}

/// Each continues to run as often as without us, whichever was first.
#[test]
fn foreign_programs_on_our_cgroup_continue_to_run() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let (older, newer) = (COUNTABLE.map(load), COUNTABLE.map(load));
    for program in &older {
        program
            .attach(lab.cgroup.path(), Mode::Multiple)
            .expect("attached");
    }
    let without_us = runs_of(&older, || {
        assert_eq!(make_calls(&lab), all_direct());
    });
    assert!(!without_us.contains(&0), "{without_us:?}");
    lab.attach(STOCK).expect("attached");
    for program in &newer {
        program
            .attach(lab.cgroup.path(), Mode::Multiple)
            .expect("attached");
    }
    for programs in [&older, &newer] {
        let beside_us = runs_of(programs, || {
            assert_eq!(make_calls(&lab), all_captured());
        });
        assert_eq!(beside_us, without_us);
    }
    lab.detach().expect("detached");
    let after_us = runs_of(&older, || {
        assert_eq!(make_calls(&lab), all_direct());
    });
    assert_eq!(after_us, without_us);
}

/// A program that runs after ours for names gets the originals.
#[test]
fn foreign_programs_for_names_continue_to_run() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let programs = [AttachType::PeerName4, AttachType::SocketName4].map(load);
    for program in &programs {
        program
            .attach(lab.cgroup.path(), Mode::Multiple)
            .expect("attached");
    }
    lab.attach(STOCK).expect("attached");
    let runs = runs_of(&programs, || {
        assert_eq!(make_calls(&lab), all_captured());
    });
    assert!(!runs.contains(&0), "{runs:?}");
}

/// In a cgroup below ours even an exclusive one runs together with ours.
#[test]
fn a_foreign_program_below_our_cgroup_runs_too() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let below = lab.cgroup.child("pod/app").expect("a cgroup");
    for mode in [Mode::Exclusive, Mode::Overridable, Mode::Multiple] {
        let program = [load(AttachType::Connect4)];
        program[0].attach(&below, mode).expect("attached");
        let runs = runs_of(&program, || {
            assert_eq!(lab.dial_all().expect("dials"), all_captured());
        });
        program[0].detach(&below).expect("detached");
        // The app's only IPv4 connection; with a mapped address it is IPv6's.
        assert_eq!(runs, [1], "{mode:?}");
    }
}

/// A program that sets or clears the callback flags of all sockets does not cause leaks.
#[test]
fn a_foreign_sockops_program_may_set_and_clear_flags() {
    let lab = Lab::new().expect("a lab");
    for (action, first) in [0, 0x7f].into_iter().flat_map(|flags| {
        let action = Action::SetCallbackFlags(flags);
        [(action, true), (action, false)]
    }) {
        let program = Program::load("flags", AttachType::SockOps, action).expect("a program");
        let cgroup = lab.cgroup.path();
        if first {
            program.attach(cgroup, Mode::Multiple).expect("attached");
        }
        lab.attach(STOCK).expect("attached");
        if !first {
            program.attach(cgroup, Mode::Multiple).expect("attached");
        }
        let listeners = lab.start_proxy().expect("a proxy");
        let programs = [program];
        let runs = runs_of(&programs, || {
            assert_eq!(lab.dial_all().expect("dials"), all_captured());
        });
        assert!(runs[0] > 0, "{action:?}");
        lab.close(listeners).expect("closed");
        let refused = vec!["ECONNREFUSED"; all_captured().len()];
        assert_eq!(lab.dial_all().expect("dials"), refused, "{action:?}");
        lab.detach().expect("detached");
        programs[0].detach(cgroup).expect("detached");
    }
}

/// A foreign program that passes everything runs before and after ours.
#[test]
fn a_foreign_sk_lookup_program_continues_to_run() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let netns = File::open(lab.pod.path()).expect("a namespace");
    let link = |program: &Program| -> Link { program.link(&netns).expect("linked") };
    let (older, newer) = (load(AttachType::SkLookup), load(AttachType::SkLookup));
    let _older_link = link(&older);
    lab.attach(STOCK).expect("attached");
    let _newer_link = link(&newer);
    for program in [older, newer] {
        let runs = runs_of(&[program], || {
            assert_eq!(lab.dial_all().expect("dials"), all_captured());
        });
        assert!(runs[0] >= all_captured().len() as u64, "{runs:?}");
    }
}
