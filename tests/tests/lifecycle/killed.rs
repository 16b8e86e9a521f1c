//! Commands that are killed at any point: the pod is captured, or it is not, or what it dials is
//! refused; and the next command makes all well.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use interceptor_tests::{
    interceptor,
    lab::{Lab, NOTHING, STOCK, Traces, all_captured, all_direct},
    spawn::spawn,
};

/// How often a command is killed in one test, each time a little later.
const KILLS: u32 = 30;

/// Starts a command and kills it after `delay`. Answers whether it was still at work.
fn killed_after(delay: Duration, command: Command) -> bool {
    let mut child: Child = spawn(command).expect("the binary");
    thread::sleep(delay);
    // Fails only for a child that has been waited for.
    let _killed = child.kill();
    !child.wait().expect("an end").success()
}

/// A command as it is, not below `timeout`, which would be what is killed.
fn plain(verb: &str, lab: &Lab) -> Command {
    let mut command = Command::new(interceptor::binary());
    command.arg(verb).arg("--netns").arg(lab.pod.path());
    command.stdin(Stdio::null()).stderr(Stdio::null());
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

/// How long something takes, and a little more.
fn duration_of(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed() * 5 / 4
}

/// Each connection is captured or refused, or each goes straight.
fn expect_all_or_nothing(lab: &Lab, delay: Duration) {
    let answers = lab.dial_all().expect("dials");
    if answers == all_direct() {
        return;
    }
    for (answer, captured) in answers.iter().zip(all_captured()) {
        let is_held = answer == captured || answer == "ECONNREFUSED";
        assert!(is_held, "killed after {delay:?}: {answers:#?}");
    }
}

#[test]
fn an_attach_that_is_killed() {
    let (lab, before) = lab();
    let whole = duration_of(|| drop(lab.attach(STOCK).expect("attached")));
    lab.detach().expect("detached");
    let mut at_work = 0;
    for kill in 0..KILLS {
        let delay = whole * kill / KILLS;
        at_work += u32::from(killed_after(delay, attach(&lab, STOCK)));
        expect_all_or_nothing(&lab, delay);
        if kill % 2 == 0 {
            lab.attach(STOCK).expect("attached");
            assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{delay:?}");
        }
        lab.detach().expect("detached");
        assert_eq!(
            lab.changes_since(&before).expect("traces"),
            NOTHING,
            "{delay:?}"
        );
        let left = lab.leftovers().expect("leftovers");
        assert_eq!(left, NOTHING, "{delay:?}");
    }
    assert!(at_work > KILLS / 3, "{at_work} of {KILLS}, up to {whole:?}");
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// What was in force stays so, or the other settings are.
#[test]
fn a_replacement_that_is_killed() {
    let (lab, before) = lab();
    lab.listen([16001]).expect("another port");
    let flags = [STOCK, &["-p", "16001"]].concat();
    let other = all_captured().into_iter();
    let other: Vec<_> = other
        .map(|answer| answer.replace(":15001", ":16001"))
        .collect();
    lab.attach(&flags).expect("attached");
    let whole = duration_of(|| drop(lab.attach(STOCK).expect("replaced")));
    for kill in 0..KILLS {
        let delay = whole * kill / KILLS;
        let flags = if kill % 2 == 0 { &flags[..] } else { STOCK };
        killed_after(delay, attach(&lab, flags));
        let answers = lab.dial_all().expect("dials");
        assert!(
            answers == all_captured() || answers == other,
            "killed after {delay:?}: {answers:#?}"
        );
    }
    lab.attach(STOCK).expect("attached");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

#[test]
fn a_detach_that_is_killed() {
    let (lab, before) = lab();
    lab.attach(STOCK).expect("attached");
    let whole = duration_of(|| drop(lab.detach().expect("detached")));
    for kill in 0..KILLS {
        let delay = whole * kill / KILLS;
        lab.attach(STOCK).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{delay:?}");
        killed_after(delay, plain("detach", &lab));
        expect_all_or_nothing(&lab, delay);
        if kill % 2 == 0 {
            lab.detach().expect("detached");
            assert_eq!(
                lab.changes_since(&before).expect("traces"),
                NOTHING,
                "{delay:?}"
            );
            let left = lab.leftovers().expect("leftovers");
            assert_eq!(left, NOTHING, "{delay:?}");
        }
    }
}
