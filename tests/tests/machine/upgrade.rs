//! Upgrades to another build, newer or older, which work the same way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Handle, Reply, Request},
    },
    bpf::pins,
    command::{bounded, output},
    dialler::{Dialler, Plan},
    inner::put_inside,
    interceptor,
    lab::{
        Killing, Lab, NOTHING, STOCK, all_captured, call, dial, echoes, send_datagram, stderr_of,
        wait_until,
    },
    machine::Exclusive,
    netns::Netns,
    tap::Tap,
    users::{APP, ROOT},
};

use crate::{alone, expect_nothing_left};

/// The number of upgrades in one test.
const CHANGES: usize = 6;
/// The number of kills of a command.
const KILLS: usize = 16;

/// The tested build, and one with another layout of policies and listeners.
pub(crate) fn builds() -> [PathBuf; 2] {
    let builds = [interceptor::binary(), interceptor::other_binary()];
    for build in &builds {
        let shown = build.display();
        assert!(
            build.exists(),
            "{shown} is missing: run `cargo xtask build --other-layout`"
        );
    }
    builds
}

fn attached(alone: &Exclusive) -> Lab {
    let lab = Lab::alone(alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    lab
}

/// Attaches the lab with its settings, with this build.
fn attach(lab: &Lab, build: &Path) -> Command {
    let mut command = Command::new(build);
    command.arg("attach").arg("--netns").arg(lab.pod.path());
    command.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    command
}

/// Open connections of the app: destinations and sockets.
fn open(lab: &Lab) -> Vec<(&'static str, Handle)> {
    ["10.2.0.9:80", "[fd00:2::9]:80"]
        .map(|to| {
            let (socket, response) = call(&lab.app, to).expect("a call");
            assert_eq!(response, format!("proxy:15001 for {to}"));
            (to, socket)
        })
        .into()
}

/// The app and an outside client, which dial all the time.
fn diallers(lab: &Lab) -> [Dialler; 2] {
    let start = |user, netns, place: &str, to| {
        let cgroup = lab.cgroup.child(place).expect("a cgroup");
        let plan = Plan::endless(to).expect("a plan");
        Dialler::start(user, netns, &cgroup, &plan).expect("a dialler")
    };
    [
        start(APP, &lab.pod, "pod/app", "10.2.0.9:80"),
        start(ROOT, &lab.peer, "peer", "[fd00:1::2]:8080"),
    ]
}

/// Every connection reached the proxy, which got its original destination.
#[track_caller]
fn expect_all_captured(diallers: [Dialler; 2]) {
    for (proxy, dialler) in ["proxy:15001", "proxy:15006"].into_iter().zip(diallers) {
        let outcomes = dialler.stop().expect("outcomes");
        assert_eq!(outcomes.names(), [proxy], "{outcomes:#?}");
        assert!(outcomes.dials() as usize > CHANGES, "{outcomes:#?}");
    }
}

/// They survive, and their ends have the same names.
#[track_caller]
fn expect_open(lab: &Lab, open: &[(&str, Handle)]) {
    for (to, socket) in open {
        assert!(echoes(&lab.app, *socket).expect("a response"), "{to}");
        let name = lab.app.call(&Request::PeerName { socket: *socket });
        let named = Reply::Name(to.parse().expect("an address"));
        assert_eq!(name.expect("a name"), named);
    }
}

/// The layouts with pinned policies, and the builds with pinned programs.
pub(crate) fn pinned() -> [usize; 2] {
    let names = |dir: &str| {
        let entries = fs::read_dir(pins::dir().join(dir)).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.filter_map(|name| name.into_string().ok())
    };
    let policies = names("maps").filter(|name| name.starts_with("icept_policies"));
    [policies.count(), names("programs").count()]
}

#[track_caller]
fn expect_captured(lab: &Lab) {
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

#[test]
fn no_connection_is_missed_during_upgrades() {
    let alone = alone();
    let labs = [attached(&alone), attached(&alone)];
    let lab = &labs[0];
    let open = open(lab);
    let diallers = diallers(lab);
    let [own, other] = builds();
    for turn in 0..CHANGES {
        let build = if turn % 2 == 0 { &other } else { &own };
        stderr_of(&mut attach(lab, build)).expect("upgraded");
        labs.iter().for_each(expect_captured);
        expect_open(lab, &open);
        assert_eq!(pinned(), [1, 1]);
    }
    expect_all_captured(diallers);
    drop(labs);
    expect_nothing_left();
}

/// Programs at a pod's interfaces handle its forwarded connections; they are replaced too.
#[test]
fn forwarded_connections_stay_captured_during_upgrades() {
    const TO: &str = "10.2.0.9:80";
    const CAPTURED: &str = "proxy:15006 for 10.2.0.9:80";

    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let cgroup = lab.cgroup.child("inner").expect("a cgroup");
    let inside = Netns::new("inner", Some(&cgroup)).expect("a network namespace");
    put_inside(&lab.pod, &lab.peer, &inside).expect("a host inside");
    let inner = Actor::start("inner", ROOT, inside.namespace(), Some(&cgroup)).expect("an actor");
    lab.attach(STOCK).expect("attached");
    let (socket, response) = call(&inner, TO).expect("a call");
    assert_eq!(response, CAPTURED);
    let [own, other] = builds();
    for build in [&other, &own] {
        stderr_of(&mut attach(&lab, build)).expect("upgraded");
        assert_eq!(dial(&inner, TO).expect("a dial"), CAPTURED);
        assert!(echoes(&inner, socket).expect("a response"));
    }
    drop((inner, inside, lab));
    expect_nothing_left();
}

/// The programs at the node's side of the pod's interface are replaced too.
#[test]
fn strict_mode_stays_enforced_during_upgrades() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let strict = [STOCK, &["--strict", "all"]].concat();
    let attached_strict = lab.peer.enter(|| lab.attach(&strict));
    attached_strict.expect("attached");
    let other_pod = attached(&alone);
    let (by_proxy, server) = call(&lab.proxy, "10.2.0.9:80").expect("a call");
    assert_eq!(server, "remote:80");
    let tap = Tap::at(&lab.peer, "prerouting", &[("datagrams", "udp dport 123")]).expect("a tap");
    let [own, other] = builds();
    let elsewhere = output(&mut attach(&other_pod, &other), "").expect("a run");
    let error = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(error.contains("another network namespace"), "{error}");
    for build in [&other, &own] {
        let upgrade = || stderr_of(&mut attach(&other_pod, build));
        lab.peer.enter(upgrade).expect("upgraded");
        expect_captured(&lab);
        assert!(echoes(&lab.proxy, by_proxy).expect("a response"));
        send_datagram(&lab.app, "10.2.0.9:123").expect("sent");
    }
    let without = lab.peer.enter(|| lab.attach(STOCK));
    without.expect("attached without strict mode");
    send_datagram(&lab.app, "10.2.0.9:123").expect("sent");
    let is_counted = || Ok(tap.packets("datagrams")? > 0);
    wait_until("a datagram", is_counted).expect("it passes without strict mode");
    assert_eq!(tap.packets("datagrams").expect("a count"), 1);
    drop((other_pod, lab));
    expect_nothing_left();
}

/// Killed at any point, the next command of either build recovers; the pods stay captured
/// throughout.
#[test]
fn a_killed_upgrade() {
    let alone = alone();
    let labs = [attached(&alone), attached(&alone)];
    let lab = &labs[0];
    let open = open(lab);
    let [own, other] = builds();
    let work = || stderr_of(&mut attach(lab, &other)).map(drop);
    let mut killing = Killing::measured(work).expect("an upgrade");
    let diallers = diallers(lab);
    for kill in 0..KILLS {
        let (next, after) = if kill % 2 == 0 {
            (&own, &other)
        } else {
            (&other, &own)
        };
        killing.kill(attach(lab, next)).expect("a kill");
        labs.iter().for_each(expect_captured);
        // Forward, or back.
        let build = if kill % 4 < 2 { next } else { after };
        stderr_of(&mut attach(lab, build)).expect("upgraded");
        labs.iter().for_each(expect_captured);
        expect_open(lab, &open);
        assert_eq!(pinned(), [1, 1], "{killing:?}");
    }
    assert!(killing.at_work() as usize >= KILLS / 10, "{killing:?}");
    expect_all_captured(diallers);
    drop(labs);
    expect_nothing_left();
}

/// The path that it was attached by does not exist any more.
#[test]
fn a_pod_whose_path_is_deleted_is_upgraded() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let other = attached(&alone);
    let short = Actor::start("short", APP, lab.pod.namespace(), Some(lab.cgroup.path()));
    let short = short.expect("a process");
    let mut command = bounded(interceptor::binary());
    command.arg("attach").arg("--netns");
    command.arg(format!("/proc/{}/ns/net", short.pid()));
    command.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    stderr_of(&mut command).expect("attached");
    drop(short);
    stderr_of(&mut attach(&other, &builds()[1])).expect("upgraded");
    expect_captured(&lab);
    expect_captured(&other);
    stderr_of(&mut attach(&other, &builds()[0])).expect("upgraded");
    expect_captured(&lab);
}

/// A pod without any path to it stops an upgrade, and `detach --all`, which is then the remedy,
/// leaves nothing of the others.
#[test]
fn a_missing_pod_does_not_block_detaching_others() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    let [own, other] = builds();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("lost");
    let lost = Netns::mounted(&path).expect("a network namespace");
    lost.ip("addr add 10.9.0.2/24 dev lo").expect("an address");
    let mut command = bounded(&own);
    command.arg("attach").arg("--netns").arg(&path);
    command.arg("--cgroup").arg(lab.cgroup.path()).args(STOCK);
    stderr_of(&mut command).expect("attached");
    lab.attach(STOCK).expect("attached");
    let held = fs::File::open(&path).expect("held");
    drop(lost);
    let failed = output(&mut attach(&lab, &other), "").expect("a run");
    assert!(!failed.status.success());
    let failed = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.contains("detach --all"), "{failed}");
    let response = stderr_of(bounded(&other).args(["detach", "--all"])).expect("detached");
    assert!(response.contains(": 1 network"), "{response}");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    drop(held);
    expect_nothing_left();
}

#[test]
fn pods_of_another_build_are_reported_and_detached() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    lab.attach(STOCK).expect("attached");
    let [_, other] = builds();
    let printed = output(bounded(&other).arg("status"), "").expect("a run");
    assert!(!printed.status.success());
    let printed = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.contains("another build"), "{printed}");
    expect_captured(&lab);
    let netns = lab.pod.path();
    let detach: [&[&str]; 2] = [&["--all"], &["--netns", netns.to_str().expect("a path")]];
    for arguments in detach {
        lab.attach(STOCK).expect("attached");
        let mut command = bounded(&other);
        stderr_of(command.arg("detach").args(arguments)).expect("detached");
        let changes = lab.changes_since(&before).expect("traces");
        assert_eq!(changes, NOTHING, "{arguments:?}");
        expect_nothing_left();
    }
}
