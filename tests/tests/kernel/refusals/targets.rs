//! Invalid network namespaces and cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use interceptor_testkit::{
    actor::Actor,
    command::{bounded, output},
    interceptor,
    lab::{Lab, NOTHING},
    netns::Netns,
    users::{APP, ROOT},
};

use crate::refusals::{FAILED, GRAMMAR, Subjects, expect_refusal};

/// Above Linux's maximum process ID.
const NO_PROCESS: &str = "4194305";

/// Commands that need a network namespace.
const VERBS: [&str; 4] = ["attach", "run", "detach", "status"];

/// The subjects are not named; nothing of theirs may change either.
#[track_caller]
fn refuse_netns(subjects: &Subjects, netns: &str, code: i32, words: &[&str]) {
    for verb in VERBS {
        subjects.refuse(code, words, |lab| {
            let mut command = bounded(interceptor::binary());
            command.args([verb, "--netns", netns]);
            if ["attach", "run"].contains(&verb) {
                command.arg("--cgroup").arg(lab.cgroup.path());
            }
            command
        });
    }
}

#[test]
fn a_path_that_is_not_a_namespace_is_named() {
    let subjects = Subjects::new();
    let own = |kind: &str| format!("/proc/self/ns/{kind}");
    let missing = format!("/proc/{NO_PROCESS}/ns/net");
    let cases: [(&str, &[&str]); 8] = [
        ("/run/netns/no-such-pod", &["No such file"]),
        (NO_PROCESS, &["No such file"]),
        (&missing, &["No such file"]),
        ("/dev/null", &["not a network namespace"]),
        ("/etc/passwd", &["not a network namespace"]),
        ("/proc", &["not a network namespace"]),
        (&own("mnt"), &["not a network namespace", "another kind"]),
        (&own("pid"), &["not a network namespace", "another kind"]),
    ];
    for (netns, words) in cases {
        let words = [&["--netns", netns], words].concat();
        refuse_netns(&subjects, netns, FAILED, &words);
    }
}

#[test]
fn a_namespace_without_a_path_is_refused() {
    let subjects = Subjects::new();
    for netns in ["pod", "", "-1", "0", "99999999999"] {
        let words = ["--netns", "/run/netns/NAME", "process ID"];
        let glued = format!("--netns={netns}");
        subjects.refuse(GRAMMAR, &words, |_| {
            let mut command = bounded(interceptor::binary());
            command.args(["attach", &glued]);
            command
        });
    }
}

/// It would capture the whole machine.
#[test]
fn the_hosts_namespace_is_refused() {
    let subjects = Subjects::new();
    for netns in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        for verb in ["attach", "run"] {
            subjects.refuse(FAILED, &["--netns", netns, "host's"], |lab| {
                let mut command = bounded(interceptor::binary());
                command.args([verb, "--netns", netns]);
                command.arg("--cgroup").arg(lab.cgroup.path());
                command
            });
        }
    }
}

/// istio-iptables requires an address too.
#[test]
fn a_pod_without_addresses_is_refused() {
    let lab = Lab::new().expect("a lab");
    let bare = Netns::new("bare", Some(lab.cgroup.path())).expect("a namespace");
    bare.ip("link add eth0 type veth peer name eth1\nlink set eth0 up\nlink set eth1 up")
        .expect("link-local addresses");
    let show = || {
        let show = || interceptor_testkit::command::run(bounded("ip").args(["route"]), "");
        bare.enter(show).expect("routes")
    };
    let before = show();
    let mut command = bounded(interceptor::binary());
    command.arg("attach").arg("--netns").arg(bare.path());
    command.arg("--cgroup").arg(lab.cgroup.path());
    let output = output(&mut command, "").expect("a run");
    let path = bare.path().display().to_string();
    expect_refusal(
        &command,
        &output,
        FAILED,
        &[&path, "no valid local IP address"],
    );
    assert_eq!(show(), before);
    let links = lab.leftovers().expect("leftovers");
    assert_eq!(links, NOTHING);
}

fn attach_at(lab: &Lab, cgroup: impl AsRef<Path>) -> Command {
    lab.attach_command_at(cgroup.as_ref(), &[])
}

#[test]
fn a_path_that_is_not_a_cgroup_is_named() {
    let subjects = Subjects::new();
    let missing = |lab: &Lab| lab.cgroup.path().join("no-such-cgroup");
    subjects.refuse(FAILED, &["--cgroup", "no-such-cgroup"], |lab| {
        attach_at(lab, missing(lab))
    });
    for other in ["/tmp", "/etc/passwd", "/sys/fs/bpf", "/proc/self"] {
        subjects.refuse(FAILED, &["--cgroup", "not a cgroup", "cgroup2"], |lab| {
            attach_at(lab, other)
        });
    }
    subjects.refuse(
        FAILED,
        &["--cgroup", "not a cgroup", "cgroup.procs"],
        |lab| attach_at(lab, lab.cgroup.path().join("cgroup.procs")),
    );
    for version1 in version1_cgroups() {
        subjects.refuse(FAILED, &["--cgroup", "not a cgroup", "cgroup2"], |lab| {
            attach_at(lab, &version1)
        });
    }
}

/// The mount point of cgroup version 1, on machines that have both.
fn version1_cgroups() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    mounts
        .lines()
        .filter(|mount| mount.contains(" - cgroup "))
        .filter_map(|mount| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// The captured pod stays captured at its attach point.
#[test]
fn a_cgroup_missing_a_process_is_refused_and_names_it() {
    let subjects = Subjects::new();
    for lab in subjects.both() {
        let inner = lab.cgroup.child("pod/app").expect("a cgroup");
        let mut command = attach_at(lab, &inner);
        let output = output(&mut command, "").expect("a run");
        let proxy = format!("{} (", lab.proxy.pid());
        let place = lab.cgroup.path().join("pod/proxy").display().to_string();
        let inner = inner.display().to_string();
        let words = [proxy.as_str(), &place, &inner, "--cgroup"];
        expect_refusal(&command, &output, FAILED, &words);
        let app = format!("{} (", lab.app.pid());
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(!printed.contains(&app), "{printed}");
    }
    subjects.expect_unchanged();
}

/// A cgroup whose name only starts like the pod's is another one.
#[test]
fn a_cgroup_with_the_pods_name_as_prefix_is_refused() {
    let subjects = Subjects::new();
    for lab in subjects.both() {
        lab.cgroup.child("pod/app").expect("a cgroup");
        let beside = lab.cgroup.child("pod-two").expect("a cgroup");
        let pod = lab.cgroup.child("pod").expect("a cgroup");
        let start = |cgroup| Actor::start("guest", APP, lab.pod.namespace(), Some(cgroup));
        let guest = start(&beside).expect("an actor");
        let mut command = attach_at(lab, &pod);
        let output = output(&mut command, "").expect("a run");
        let words = [&*guest.pid().to_string(), "pod-two"];
        expect_refusal(&command, &output, FAILED, &words);
    }
}

/// Many processes are left out: some are named, the others counted.
#[test]
fn of_many_processes_left_out_some_are_named() {
    let lab = Lab::new().expect("a lab");
    let empty = lab.cgroup.child("empty").expect("a cgroup");
    let guests: Vec<_> = (0..9)
        .map(|_| Actor::start("guest", ROOT, lab.pod.namespace(), Some(lab.cgroup.path())))
        .collect::<Result<_, _>>()
        .expect("actors");
    let mut command = attach_at(&lab, &empty);
    let output = output(&mut command, "").expect("a run");
    // The holder, the app, its server, the proxy, and the guests.
    let more = format!("{} more", 4 + guests.len() - 5);
    expect_refusal(&command, &output, FAILED, &["does not contain", &more]);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}
