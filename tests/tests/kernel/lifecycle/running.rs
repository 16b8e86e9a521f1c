//! `interceptor run`: captured while the command runs.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use interceptor_testkit::{
    actor::Actor,
    inner::put_inside,
    interceptor,
    lab::{Caller, Lab, NOTHING, STOCK, Traces, all_captured, all_direct, dial, wait_until},
    netns::Netns,
    spawn::spawn,
    users::ROOT,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// `interceptor run`, killed when dropped.
pub(super) struct Run {
    child: Child,
}

impl Run {
    pub(crate) fn start(lab: &Lab) -> Self {
        Self::start_with(lab, STOCK)
    }

    pub(super) fn start_with(lab: &Lab, flags: &[&str]) -> Self {
        let mut command = std::process::Command::new(interceptor::binary());
        command.arg("run").arg("--netns").arg(lab.pod.path());
        command.arg("--cgroup").arg(lab.cgroup.path()).args(flags);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let child = spawn(command).expect("interceptor run");
        Self { child }
    }

    /// Waits for the first line of its output.
    pub(super) fn first_line(&mut self) -> String {
        let mut line = String::new();
        let stderr = self.child.stderr.as_mut().expect("stderr");
        BufReader::new(stderr).read_line(&mut line).expect("a line");
        line
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("a signal");
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the exit of interceptor run", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })
        .expect("an exit status");
        status.expect("a status")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn lab() -> (Lab, Traces) {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    (lab, before)
}

fn captured(lab: &Lab) -> Run {
    let mut run = Run::start(lab);
    let line = run.first_line();
    assert!(line.contains("is captured"), "{line}");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    run
}

#[test]
fn run_detaches_on_a_signal() {
    let (lab, before) = lab();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = captured(&lab);
        run.signal(signal);
        let status = run.wait();
        assert!(status.success(), "{signal}: {status}");
        assert_eq!(
            lab.changes_since(&before).expect("traces"),
            NOTHING,
            "{signal}"
        );
        assert_eq!(lab.dial_all().expect("dials"), all_direct(), "{signal}");
    }
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

#[test]
fn a_killed_run_leaves_the_pod_captured() {
    let (lab, before) = lab();
    let mut run = captured(&lab);
    run.signal(Signal::SIGKILL);
    assert!(!run.wait().success());
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// An interface of `-c` that is created while it runs is excluded from then on.
#[test]
fn run_resolves_new_interfaces() {
    let (lab, _) = lab();
    let _run = Run::start_with(&lab, &[STOCK, &["-c", "net1"]].concat());
    let dial = || lab.dial(Caller::App, "10.2.0.9:80");
    wait_until("capture", || Ok(dial()?.contains("proxy"))).expect("capture");
    let (pod, peer) = (&lab.pod, &lab.peer);
    pod.cable("net1", peer, "net1", 3).expect("a cable");
    for (netns, address) in [(pod, "10.7.0.2/24"), (peer, "10.7.0.1/24")] {
        let added = netns.ip(&format!("addr add {address} dev net1\n"));
        added.expect("an address");
    }
    let excluded = || Ok(lab.dial(Caller::App, "10.7.0.1:80")? == "remote:80");
    wait_until("the exclusion", excluded).expect("the exclusion");
    assert!(dial().expect("a dial").contains("proxy"));
}

/// Whenever the signal arrives, the pod is detached at the end.
#[test]
fn run_stopped_while_it_attaches_leaves_nothing() {
    const STEP: Duration = Duration::from_millis(30);

    let (lab, before) = lab();
    for step in 0..12 {
        let mut run = Run::start(&lab);
        thread::sleep(STEP * step);
        run.signal(Signal::SIGTERM);
        run.wait();
        assert_eq!(
            lab.changes_since(&before).expect("traces"),
            NOTHING,
            "{:?}",
            STEP * step
        );
        let left = lab.leftovers().expect("leftovers");
        assert_eq!(left, NOTHING, "{:?}", STEP * step);
    }
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// The pod was detached by another command: nothing is left to do, and that is not an error.
#[test]
fn run_succeeds_if_the_pod_is_detached_already() {
    let (lab, before) = lab();
    let mut run = captured(&lab);
    lab.detach().expect("detached");
    run.signal(Signal::SIGINT);
    assert!(run.wait().success());
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

/// Whether `status` reports that the pod's network differs from the attached one.
fn has_changed(lab: &Lab) -> bool {
    let arguments = ["status", "-o", "json", "--netns"].map(str::to_owned);
    let netns = lab.pod.path().display().to_string();
    let status = interceptor::try_run(arguments.into_iter().chain([netns])).expect("status");
    assert!(status.status.success(), "{status:?}");
    let pods: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    pods[0]["network_changed"].as_bool().expect("a boolean")
}

const NEW_ROUTE: &str = "addr add 10.1.0.7/24 dev eth0\n\
                         route add 10.2.0.0/24 via 10.1.0.1 src 10.1.0.7";

#[test]
fn run_follows_the_pods_addresses_and_routes() {
    let (lab, _) = lab();
    let _run = captured(&lab);
    lab.pod.ip(NEW_ROUTE).expect("a route");
    wait_until("the new route", || Ok(!has_changed(&lab))).expect("followed");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let own = lab.dial(Caller::App, "10.1.0.7:8080").expect("a dial");
    assert_eq!(own, "server:8080");
}

/// iptables' rules are written once. So a later interface of a pod (`docker0`, a tunnel) does not
/// end the capture of its IPv6, nor does the loss of all its addresses, nor that of the source
/// address of a stand-in.
#[test]
fn ipv6_stays_captured_whatever_addresses_change() {
    const ONLY_V6: &[&str] = &["-b", "*", "-d", "15090,15021,15020", "-i", "*"];

    let (lab, _) = lab();
    lab.pod
        .ip("addr del 10.1.0.2/24 dev eth0")
        .expect("no IPv4");
    let mut run = Run::start_with(&lab, ONLY_V6);
    let line = run.first_line();
    assert!(line.contains("is captured"), "{line}");
    let expect_captured = || {
        let out = lab.dial(Caller::App, "[fd00:2::9]:80").expect("a dial");
        assert_eq!(out, "proxy:15001 for [fd00:2::9]:80");
        let into = lab
            .dial(Caller::Client, "[fd00:1::2]:8080")
            .expect("a dial");
        assert_eq!(into, "proxy:15006 for [fd00:1::2]:8080");
    };
    expect_captured();
    let follow = |change: &str| {
        lab.pod.ip(change).expect("a change");
        wait_until(change, || Ok(!has_changed(&lab))).expect("followed");
    };
    follow("addr add 172.17.0.1/16 dev lo");
    expect_captured();
    follow("addr del 172.17.0.1/16 dev lo\naddr del fd00:1::2/64 dev eth0");
    follow("addr add fd00:1::2/64 dev eth0 nodad\nroute replace ::/0 via fd00:1::1");
    expect_captured();
}

#[test]
fn status_reports_network_changes_since_the_attach() {
    let (lab, _) = lab();
    lab.attach(STOCK).expect("attached");
    assert!(!has_changed(&lab));
    lab.pod.ip(NEW_ROUTE).expect("a route");
    assert!(has_changed(&lab));
    lab.attach(STOCK).expect("attached again");
    assert!(!has_changed(&lab));
}

/// A bridge that is created inside the pod, and forwarding that is enabled.
#[test]
fn run_follows_forwarded_interfaces() {
    let (lab, _) = lab();
    let _run = captured(&lab);
    let inner = Netns::new("inner", Some(lab.cgroup.path())).expect("a netns");
    put_inside(&lab.pod, &lab.peer, &inner).expect("a host inside");
    let dialler = Actor::start("inner", ROOT, inner.namespace(), None).expect("an actor");
    wait_until("its connections' capture", || {
        Ok(dial(&dialler, "10.2.0.9:80")? == "proxy:15006 for 10.2.0.9:80")
    })
    .expect("followed");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}
