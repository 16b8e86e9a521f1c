//! Requests to the agent, and the results of its responses.

use std::path::Path;

use interceptor::cni::protocol::{BindError, Listener, PodResult};
use serde_json::{Value, json};

use crate::cni::{
    Call, PREVIOUS,
    agent::{Agent, Behavior, SocketDir},
    conf,
};

const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn failing(reason: &str) -> Behavior {
    Behavior::Returns(PodResult::Failed {
        reason: reason.to_owned(),
    })
}

#[test]
fn add_calls_the_agent_and_passes_the_result_on_unchanged() {
    let dir = SocketDir::new();
    let agent = Agent::captures(&dir);
    for version in SUPPORTED {
        let input = conf(&dir.socket(), version, &json!({}));
        Call::new("ADD", &dir.socket())
            .input(input)
            .succeeds(PREVIOUS);
    }
    let request = "add shop/web-0 11-22 /var/run/netns/cni-1";
    assert_eq!(agent.calls.all(), [request; SUPPORTED.len()]);
}

#[test]
fn a_skipped_pod_starts() {
    let dir = SocketDir::new();
    let reason = "it has no istio-proxy".to_owned();
    let _agent = Agent::start(&dir, Behavior::Returns(PodResult::Skipped { reason }));
    let call = Call::new("ADD", &dir.socket());
    call.succeeds(PREVIOUS);
    let stderr = String::from_utf8_lossy(&call.run().stderr).into_owned();
    assert!(
        stderr.contains("shop/web-0") && stderr.contains("it has no istio-proxy"),
        "{stderr}"
    );
}

#[test]
fn a_pod_that_cannot_be_captured_fails_with_the_reason() {
    let dir = SocketDir::new();
    let _agent = Agent::start(&dir, failing("the annotation is \"x\""));
    let error = Call::new("ADD", &dir.socket()).fails(100, &["shop/web-0"]);
    assert_eq!(error["details"], "the annotation is \"x\"");
    assert_eq!(error["cniVersion"], "1.0.0");
}

#[test]
fn check_fails_only_if_the_agent_says_so() {
    let dir = SocketDir::new();
    let call = Call::new("CHECK", &dir.socket());
    call.succeeds("");
    let agent = Agent::captures(&dir);
    call.succeeds("");
    assert!(agent.calls.all()[0].starts_with("check shop/web-0"));
    drop(agent);
    let _agent = Agent::start(&dir, failing("no program is attached"));
    call.fails(101, &["no program is attached"]);
}

#[test]
fn del_and_gc_are_sent_to_the_agent() {
    let dir = SocketDir::new();
    let agent = Agent::captures(&dir);
    let mut del = Call::new("DEL", &dir.socket());
    del.succeeds("");
    del.netns = "";
    del.succeeds("");
    let valid = json!({"cni.dev/valid-attachments": [
        {"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth0"},
    ]});
    let input = conf(&dir.socket(), "1.1.0", &valid);
    Call::new("GC", &dir.socket()).input(input).succeeds("");
    // The specification requires the list.
    Call::new("GC", &dir.socket()).succeeds("");
    assert_eq!(
        agent.calls.all(),
        ["del c1 netns=true", "del c1 netns=false", "gc"]
    );
}

/// The log names the pod of the sandbox.
#[test]
fn del_without_an_agent_names_the_pod() {
    let dir = SocketDir::new();
    let output = Call::new("DEL", &dir.socket()).run();
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("DEL shop/web-0: could not notify the agent"),
        "{stderr}"
    );
}

#[test]
fn version_needs_no_configuration() {
    for input in [r#"{"cniVersion":"0.4.0"}"#, ""] {
        let output = Call::new("VERSION", Path::new("/none")).input(input).run();
        assert!(output.status.success());
        let response: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for version in SUPPORTED {
            let supported = response["supportedVersions"].as_array().expect("a list");
            assert!(supported.contains(&version.into()), "{response}");
        }
    }
}

/// As Multus calls a stand-alone network.
#[test]
fn add_without_a_previous_result_returns_an_empty_one() {
    let dir = SocketDir::new();
    let _agent = Agent::captures(&dir);
    for version in SUPPORTED {
        let conf = json!({
            "cniVersion": version, "name": "interceptor-cni", "type": "interceptor-cni",
            "socket": dir.socket(),
        });
        let output = Call::new("ADD", &dir.socket())
            .input(conf.to_string())
            .run();
        let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"], json!([]));
    }
}

#[tokio::test]
async fn only_an_exited_agents_socket_is_replaced() {
    let dir = SocketDir::new();
    let agent = Agent::captures(&dir);
    let taken = Listener::bind(&dir.socket()).err();
    assert!(matches!(taken, Some(BindError::Taken(_))), "{taken:?}");
    drop(agent);
    assert!(dir.socket().exists(), "a killed agent leaves its socket");
    let _listener = Listener::bind(&dir.socket()).expect("a socket");
}

#[test]
fn only_root_may_use_the_socket() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = SocketDir::new();
    let _agent = Agent::captures(&dir);
    let mode = dir.socket().metadata().expect("a socket").mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A plugin of another release.
#[test]
fn an_unknown_request_is_named_in_the_response() {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixStream,
    };
    let dir = SocketDir::new();
    let agent = Agent::captures(&dir);
    let send = |request: &str| {
        let mut stream = UnixStream::connect(dir.socket()).expect("an agent");
        writeln!(stream, "{request}").expect("a listener");
        let mut response = String::new();
        BufReader::new(stream)
            .read_line(&mut response)
            .expect("a response");
        response
    };
    let known = r#"{"protocol":1,"release":"9.9","wait_ms":1000,"verb":"status","new_field":[1]}"#;
    assert_eq!(send(known), "{\"result\":\"ok\"}\n");
    for (request, says) in [
        (
            r#"{"protocol":1,"release":"9.9","wait_ms":1000,"verb":"dance"}"#,
            "dance",
        ),
        (
            r#"{"protocol":7,"release":"9.9","wait_ms":1000,"verb":"add"}"#,
            "version 7",
        ),
        ("garbage", "invalid request"),
    ] {
        let response = send(request);
        assert!(
            response.contains("unknown") && response.contains(says),
            "{response}"
        );
    }
    assert_eq!(agent.calls.all(), Vec::<String>::new());
    // Release 0.1.0 sends fields that the agent does not read.
    let old = r#"{"protocol":1,"release":"0.1.0","wait_ms":1000,"verb":"gc","network":"net","container_ids":["c1"]}"#;
    assert_eq!(send(old), "{\"result\":\"ok\"}\n");
    let old = r#"{"protocol":1,"release":"0.1.0","wait_ms":1000,"verb":"add","container_id":"c1","netns":"/n","ifname":"eth0","pod":{"namespace":"shop","name":"web-0"},"uid":"11-22"}"#;
    assert_eq!(send(old), "{\"result\":\"captured\"}\n");
    assert_eq!(agent.calls.all(), ["gc", "add shop/web-0 11-22 /n"]);
}
