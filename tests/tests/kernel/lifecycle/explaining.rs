//! `interceptor explain`: its output matches the real verdict.

use interceptor_testkit::{
    interceptor,
    lab::{CAPTURED, Caller, Lab, STOCK},
    users::APP,
};

/// The explained port of the listener that gets a connection.
fn explained(lab: &Lab, caller: Caller, to: &str) -> String {
    let netns = lab.pod.path().display().to_string();
    let owner = format!("uid={},gid={}", APP.uid, APP.gid);
    let direction = match caller {
        Caller::App => ["--from", &owner],
        Caller::Client => ["--inbound", "--interface=eth0"],
    };
    let question = ["-o", "json", "--to", to];
    let arguments = ["explain", "--netns", &netns];
    let arguments = arguments.iter().chain(&direction).chain(&question);
    let explained = interceptor::try_run(arguments).expect("explain");
    assert!(explained.status.success(), "{explained:?}");
    let json: serde_json::Value = serde_json::from_slice(&explained.stdout).expect("JSON");
    assert!(json["rule"]["specification"].is_string(), "{json}");
    json["outcome"]["captured"]["port"].to_string()
}

#[test]
fn the_explanation_matches_the_verdict() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    for (caller, to, captured, _) in CAPTURED {
        assert_eq!(lab.dial(caller, to).expect("a dial"), captured);
        let port = explained(&lab, caller, to);
        assert!(
            captured.starts_with(&format!("proxy:{port} ")),
            "{to}: {port}"
        );
    }
    assert_eq!(explained(&lab, Caller::Client, "10.1.0.2:15020"), "null");
}

#[test]
fn explain_reports_an_uncaptured_pod() {
    let lab = Lab::new().expect("a lab");
    let netns = lab.pod.path().display().to_string();
    let arguments = ["explain", "--netns", &netns, "--to", "10.2.0.9:80"];
    let explained = interceptor::try_run(arguments).expect("explain");
    assert_eq!(explained.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&explained.stderr);
    assert!(printed.contains("is not captured"), "{printed}");
}
