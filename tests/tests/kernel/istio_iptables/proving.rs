//! Verification of the capture, with few privileges or none.

use std::{
    thread,
    time::{Duration, Instant},
};

use interceptor_testkit::lab::{Lab, NOTHING, STOCK};

use crate::istio_iptables::{InPod, NOT_PROVEN, expect, output_text};

/// istio-init's privileges: root, with two capabilities, in a cgroup namespace of its own.
const ISTIO_INIT: &[&str] = &[
    "unshare",
    "--cgroup",
    "setpriv",
    "--bounding-set",
    "-all,+net_admin,+net_raw",
    "--inh-caps",
    "-all,+net_admin,+net_raw",
];

/// istio-validation's privileges: none.
const ISTIO_VALIDATION: &[&str] = &[
    "setpriv",
    "--reuid=1337",
    "--regid=1337",
    "--clear-groups",
    "--bounding-set=-all",
    "--no-new-privs",
];

const VALIDATE: &[&str] = &["--skip-rule-apply", "--run-validation"];
const SHORTLY: &str = "--probe-timeout=300ms";

/// The privileges that suffice for the verification.
const ALL_RIGHTS: [&[&str]; 3] = [&[], ISTIO_INIT, ISTIO_VALIDATION];

#[test]
fn a_captured_pod_passes_and_another_does_not() {
    let lab = Lab::new().expect("a lab");
    let pods = ALL_RIGHTS.map(|wrapper| InPod { lab: &lab, wrapper });
    for pod in &pods {
        let output = pod.stock(&[VALIDATE, &[SHORTLY]].concat());
        expect(
            &output,
            NOT_PROVEN,
            &[
                "could not verify that the pod is captured",
                "127.0.0.1:15001",
                "300ms",
            ],
        );
    }
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    lab.attach(STOCK).expect("attached");
    for pod in &pods {
        expect(&pod.stock(VALIDATE), 0, &["verified"]);
    }
}

/// The verification works with any mechanism: the kernel's own rules pass as well.
#[test]
fn iptables_rules_pass() {
    let lab = Lab::new().expect("a lab");
    let root = InPod::privileged(&lab);
    let printed = root.stock(&["--dry-run"]);
    let printed = String::from_utf8(printed.stdout).expect("text");
    let (rules, _) = printed.split_once("# The same for").expect("both families");
    let restored = root.run("iptables-restore", &["--noflush"], rules);
    assert!(restored.status.success(), "{}", output_text(&restored));
    for wrapper in ALL_RIGHTS {
        expect(
            &InPod { lab: &lab, wrapper }.stock(VALIDATE),
            0,
            &["verified"],
        );
    }
}

/// The ports are those of the settings, and so is the user.
#[test]
fn other_ports_and_users_are_verified() {
    let lab = Lab::new().expect("a lab");
    let other = [
        "-p", "15101", "-z", "15106", "-u", "77,1000", "-b", "", "-i", "",
    ];
    lab.attach(&other).expect("attached");
    let probe = ["--iptables-probe-port", "7"];
    let output = InPod::privileged(&lab).istio_iptables(&[&other, VALIDATE, &probe].concat());
    expect(&output, 0, &["verified"]);
    // Those of another proxy are not.
    let output = InPod::privileged(&lab).stock(&[VALIDATE, &[SHORTLY]].concat());
    expect(&output, NOT_PROVEN, &["UID 1337", "127.0.0.6:15002"]);
}

#[test]
fn a_pod_with_ipv6_only_is_verified_over_ipv6() {
    let lab = Lab::new().expect("a lab");
    lab.pod
        .ip("addr del 10.1.0.2/24 dev eth0")
        .expect("IPv6 only");
    let output = InPod::privileged(&lab).stock(&[VALIDATE, &[SHORTLY]].concat());
    expect(&output, NOT_PROVEN, &["[::1]:15001", "[::6]:15002"]);
    lab.attach(STOCK).expect("attached");
    for wrapper in ALL_RIGHTS {
        expect(
            &InPod { lab: &lab, wrapper }.stock(VALIDATE),
            0,
            &["verified"],
        );
    }
}

/// With istio-init's privileges nothing can be attached: the node agent attaches in the meantime.
#[test]
fn with_few_privileges_it_waits_for_the_capture() {
    let lab = Lab::new().expect("a lab");
    let pod = InPod {
        lab: &lab,
        wrapper: ISTIO_INIT,
    };
    let timeout = Duration::from_millis(1500);
    let start = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| (pod.stock(&["--probe-timeout", "1m"]), start.elapsed()));
        thread::sleep(timeout);
        lab.attach(STOCK).expect("attached");
        let (output, elapsed) = waiting.join().expect("a run");
        expect(&output, 0, &["CAP_BPF", "waiting", "verified"]);
        assert!(elapsed > timeout, "{elapsed:?}");
    });
}

#[test]
fn with_few_privileges_it_times_out_without_a_capture() {
    let lab = Lab::new().expect("a lab");
    let pod = InPod {
        lab: &lab,
        wrapper: ISTIO_INIT,
    };
    expect(
        &pod.stock(&[SHORTLY]),
        NOT_PROVEN,
        &["CAP_BPF", "could not verify that the pod is captured"],
    );
    // With these settings no connection that it could try is captured.
    expect(
        &pod.istio_iptables(&["-b", "*"]),
        NOT_PROVEN,
        &["CAP_SETUID"],
    );
    let output = pod.istio_iptables(&["--cleanup-only"]);
    expect(&output, 1, &["CAP_BPF"]);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}
