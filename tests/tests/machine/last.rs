//! Leftovers after the last pod.

use interceptor_testkit::{
    actor::Actor,
    command::output,
    dialler::{Dialler, Plan},
    lab::{Lab, NOTHING, STOCK, all_captured, all_direct, stderr_of},
    users::{APP, ROOT},
};

use crate::{alone, expect_nothing_left, interceptor, objects};

#[test]
fn everything_is_removed_with_the_last_pod() {
    let alone = alone();
    expect_nothing_left();
    let labs = [(), ()].map(|()| Lab::alone(&alone).expect("a lab"));
    let before = labs.each_ref().map(|lab| lab.traces().expect("traces"));
    for lab in &labs {
        lab.start_proxy().expect("a proxy");
        lab.attach(STOCK).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
    }
    assert!(objects(&["link", "prog", "map"]).expect("objects").len() > 20);
    labs[0].detach().expect("detached");
    assert_eq!(labs[1].dial_all().expect("dials"), all_captured());
    labs[1].detach().expect("detached");
    expect_nothing_left();
    for (lab, before) in labs.iter().zip(&before) {
        assert_eq!(lab.changes_since(before).expect("traces"), NOTHING);
        assert_eq!(lab.dial_all().expect("dials"), all_direct());
    }
}

#[test]
fn all_pods_are_detached_at_once() {
    let alone = alone();
    let labs = [(), (), ()].map(|()| Lab::alone(&alone).expect("a lab"));
    let before = labs.each_ref().map(|lab| lab.traces().expect("traces"));
    for lab in &labs {
        lab.start_proxy().expect("a proxy");
        lab.attach(STOCK).expect("attached");
    }
    let printed = stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    assert!(printed.contains('3'), "{printed}");
    expect_nothing_left();
    for (lab, before) in labs.iter().zip(&before) {
        assert_eq!(lab.changes_since(before).expect("traces"), NOTHING);
        assert_eq!(lab.dial_all().expect("dials"), all_direct());
    }
}

/// The effect of `uninstall --now`, while connections are made in each pod and to it.
#[test]
fn during_uninstall_connections_are_captured_or_direct() {
    let alone = alone();
    let labs = [(), ()].map(|()| Lab::alone(&alone).expect("a lab"));
    let mut crowd = Vec::new();
    for lab in &labs {
        lab.start_proxy().expect("a proxy");
        let [app, peer] =
            ["pod/app", "peer"].map(|place| lab.cgroup.child(place).expect("a cgroup"));
        let [out, into] =
            ["10.2.0.9:80", "10.1.0.2:8080"].map(|to| Plan::endless(to).expect("a plan"));
        crowd.push(Dialler::start(APP, &lab.pod, &app, &out).expect("a dialler"));
        crowd.push(Dialler::start(ROOT, &lab.peer, &peer, &into).expect("a dialler"));
    }
    for _ in 0..10 {
        for lab in &labs {
            lab.attach(STOCK).expect("attached");
        }
        stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    }
    let expected = [["proxy:15001", "remote:80"], ["proxy:15006", "server:8080"]];
    for (dialler, expected) in crowd.into_iter().zip(expected.into_iter().cycle()) {
        let outcomes = dialler.stop().expect("outcomes");
        assert_eq!(outcomes.names(), expected, "{outcomes:#?}");
    }
    expect_nothing_left();
}

/// The path that a pod was attached by may be deleted while the pod exists: it is found all the
/// same.
#[test]
fn a_pod_is_detached_with_all_after_its_path_is_deleted() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    let cgroup = lab.cgroup.child("pod").expect("a cgroup");
    let guest = Actor::start("guest", APP, lab.pod.namespace(), Some(&cgroup));
    let guest = guest.expect("an actor");
    let mut attach = interceptor(&["attach", "--netns", &guest.pid().to_string()]);
    attach.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    stderr_of(&mut attach).expect("attached");
    drop(guest);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    expect_nothing_left();
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

#[test]
fn commands_without_attached_pods_create_nothing() {
    let _alone = alone();
    let again = stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    assert!(again.contains('0'), "{again}");
    let status = output(&mut interceptor(&["status"]), "").expect("status");
    assert!(status.status.success(), "{status:?}");
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains("No pod is captured"), "{text}");
    let json = output(&mut interceptor(&["status", "-o", "json"]), "").expect("status");
    assert_eq!(String::from_utf8_lossy(&json.stdout).trim(), "[]");
    expect_nothing_left();
}

#[test]
fn check_leaves_nothing() {
    let _alone = alone();
    let check = output(&mut interceptor(&["check"]), "").expect("check");
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{text}");
    assert!(!text.contains("MISSING"), "{text}");
    expect_nothing_left();
    let bpffs = std::fs::read_dir("/sys/fs/bpf")
        .expect("the bpffs")
        .flatten();
    let left: Vec<_> = bpffs
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("interceptor"))
        .collect();
    assert_eq!(left, NOTHING);
}
