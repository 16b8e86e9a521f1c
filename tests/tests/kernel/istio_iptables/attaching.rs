//! With the privileges to attach.

use interceptor_testkit::lab::{Lab, NOTHING, all_captured, all_direct};

use crate::istio_iptables::{InPod, expect};

#[test]
fn istio_iptables_attaches_its_netns_and_cleans_up() {
    let lab = Lab::new().expect("a lab");
    let pod = InPod::privileged(&lab);
    lab.start_proxy().expect("a proxy");
    expect(&pod.stock(&[]), 0, &["is captured"]);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    expect(
        &pod.stock(&["--force-apply"]),
        0,
        &["same settings", "--force-apply"],
    );
    expect(
        &pod.stock(&["--reconcile"]),
        0,
        &["same settings", "--reconcile"],
    );
    expect(
        &pod.istio_iptables(&["--cleanup-only"]),
        0,
        &["no longer captured"],
    );
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    expect(
        &pod.istio_iptables(&["--cleanup-only"]),
        0,
        &["not captured"],
    );
}

/// It accepts all arguments of istio-init; the last of two applies.
#[test]
fn istio_inits_arguments_are_accepted() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let arguments = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i 10.0.0.0/8 -i * -x , -b * \
                     -d 15090,15021,15020 --log_output_level=default:info --log_as_json --dual-stack";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let output = InPod::privileged(&lab).istio_iptables(&arguments);
    let words = [
        "--log_output_level",
        "--log_as_json",
        "ignored",
        "is captured",
    ];
    expect(&output, 0, &words);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

#[test]
fn an_attach_is_verified_on_request() {
    let lab = Lab::new().expect("a lab");
    let output = InPod::privileged(&lab).stock(&["--run-validation"]);
    expect(&output, 0, &["is captured", "verified"]);
}

#[test]
fn skipping_the_rules_changes_nothing() {
    let lab = Lab::new().expect("a lab");
    let before = lab.traces().expect("traces");
    let output = InPod::privileged(&lab).stock(&["--skip-rule-apply"]);
    expect(&output, 0, &["nothing to do"]);
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}
