//! Commands that are killed at any point: the pod is captured, or not, or its connections are
//! refused; and the next command restores a consistent state.

use std::process::Command;

use interceptor_testkit::{
    interceptor,
    lab::{Killing, Lab, NOTHING, STOCK, TPROXY, Traces, all_captured, all_direct},
};

/// The number of killed commands in one test.
const KILLS: u32 = 30;

/// A command without the wrapper `timeout`, which would be killed instead.
fn plain(verb: &str, lab: &Lab) -> Command {
    let mut command = Command::new(interceptor::binary());
    command.arg(verb).arg("--netns").arg(lab.pod.path());
    command
}

fn attach(lab: &Lab, flags: &[&str]) -> Command {
    let mut command = plain("attach", lab);
    command.arg("--cgroup").arg(lab.cgroup.path()).args(flags);
    command
}

fn lab() -> (Lab, Traces) {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    (lab, before)
}

/// All connections are captured or refused, or all bypass the proxy.
fn expect_all_or_nothing(lab: &Lab, killing: &Killing) {
    let responses = lab.dial_all().expect("dials");
    if responses == all_direct() {
        return;
    }
    for (response, captured) in responses.iter().zip(all_captured()) {
        let is_held = response == captured || response == "ECONNREFUSED";
        assert!(is_held, "{killing:?}: {responses:#?}");
    }
}

/// Some commands were killed while they ran: otherwise nothing was tested. (How many depends on
/// timing.)
fn expect_enough(killing: &Killing) {
    assert!(killing.at_work() >= KILLS / 10, "{killing:?}");
}

#[test]
fn a_killed_attach() {
    kill_attaches(STOCK);
}

/// Rules, routes and sysctls are in the pod before the policy is committed.
#[test]
fn a_killed_attach_with_tproxy() {
    kill_attaches(&[STOCK, TPROXY].concat());
}

fn kill_attaches(flags: &[&str]) {
    let (lab, before) = lab();
    lab.attach(flags).expect("attached");
    lab.detach().expect("detached");
    let work = || lab.attach(flags).map(drop);
    let mut killing = Killing::measured(work).expect("an attach");
    lab.detach().expect("detached");
    for kill in 0..KILLS {
        killing.kill(attach(&lab, flags)).expect("a kill");
        expect_all_or_nothing(&lab, &killing);
        if kill % 2 == 0 {
            lab.attach(flags).expect("attached");
            let responses = lab.dial_all().expect("dials");
            assert_eq!(responses, all_captured(), "{killing:?}");
        }
        lab.detach().expect("detached");
        let changes = lab.changes_since(&before).expect("traces");
        assert_eq!(changes, NOTHING, "{killing:?}");
        let left = lab.leftovers().expect("leftovers");
        assert_eq!(left, NOTHING, "{killing:?}");
    }
    expect_enough(&killing);
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// Either the old or the new settings apply.
#[test]
fn a_killed_replacement() {
    let (lab, before) = lab();
    lab.listen([16001]).expect("another port");
    let flags = [STOCK, &["-p", "16001"]].concat();
    let other = all_captured().into_iter();
    let other: Vec<_> = other
        .map(|response| response.replace(":15001", ":16001"))
        .collect();
    lab.attach(&flags).expect("attached");
    let work = || lab.attach(STOCK).map(drop);
    let mut killing = Killing::measured(work).expect("an attach");
    for kill in 0..KILLS {
        let flags = if kill % 2 == 0 { &flags[..] } else { STOCK };
        killing.kill(attach(&lab, flags)).expect("a kill");
        let responses = lab.dial_all().expect("dials");
        assert!(
            responses == all_captured() || responses == other,
            "{killing:?}: {responses:#?}"
        );
    }
    expect_enough(&killing);
    lab.attach(STOCK).expect("attached");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

/// One mode or the other, which look the same from outside; TPROXY's state in the pod exists only
/// with that mode.
#[test]
fn a_killed_change_of_mode() {
    let (lab, before) = lab();
    let tproxy = [STOCK, TPROXY].concat();
    lab.attach(STOCK).expect("attached");
    let redirecting = lab.traces().expect("traces");
    lab.attach(&tproxy).expect("attached");
    let work = || lab.attach(STOCK).map(drop);
    let mut killing = Killing::measured(work).expect("an attach");
    for kill in 0..KILLS {
        let flags = if kill % 2 == 0 { &tproxy[..] } else { STOCK };
        killing.kill(attach(&lab, flags)).expect("a kill");
        let responses = lab.dial_all().expect("dials");
        assert_eq!(responses, all_captured(), "{killing:?}");
    }
    expect_enough(&killing);
    lab.attach(STOCK).expect("attached");
    let now = lab.traces().expect("traces");
    assert_eq!(now.network, redirecting.network);
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

#[test]
fn a_killed_detach() {
    kill_detaches(STOCK);
}

#[test]
fn a_killed_detach_of_tproxy() {
    kill_detaches(&[STOCK, TPROXY].concat());
}

fn kill_detaches(flags: &[&str]) {
    let (lab, before) = lab();
    lab.attach(flags).expect("attached");
    let work = || lab.detach().map(drop);
    let mut killing = Killing::measured(work).expect("a detach");
    for kill in 0..KILLS {
        lab.attach(flags).expect("attached");
        let responses = lab.dial_all().expect("dials");
        assert_eq!(responses, all_captured(), "{killing:?}");
        killing.kill(plain("detach", &lab)).expect("a kill");
        expect_all_or_nothing(&lab, &killing);
        if kill % 2 == 0 {
            lab.detach().expect("detached");
            let changes = lab.changes_since(&before).expect("traces");
            assert_eq!(changes, NOTHING, "{killing:?}");
            let left = lab.leftovers().expect("leftovers");
            assert_eq!(left, NOTHING, "{killing:?}");
        }
    }
    expect_enough(&killing);
}
