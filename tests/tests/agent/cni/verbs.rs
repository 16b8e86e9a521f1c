//! With an agent: what it is asked, and what becomes of its answers.

use std::path::Path;

use interceptor::cni::protocol::{BindError, Listener, Outcome};
use serde_json::{Value, json};

use crate::cni::{
    Call, PREVIOUS,
    agent::{Agent, Mood, Place},
    conf,
};

const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn failing(reason: &str) -> Mood {
    Mood::Answers(Outcome::Failed {
        reason: reason.to_owned(),
    })
}

#[test]
fn add_asks_the_agent_and_passes_the_result_on_to_the_byte() {
    let place = Place::new();
    let agent = Agent::captures(&place);
    for version in SUPPORTED {
        let input = conf(&place.socket(), version, &json!({}));
        Call::new("ADD", &place.socket())
            .input(input)
            .succeeds(PREVIOUS);
    }
    let asked = "add shop/web-0 11-22 /var/run/netns/cni-1";
    assert_eq!(agent.heard.all(), [asked; SUPPORTED.len()]);
}

#[test]
fn a_pod_that_is_not_to_be_captured_starts() {
    let place = Place::new();
    let reason = "it has no istio-proxy".to_owned();
    let _agent = Agent::start(&place, Mood::Answers(Outcome::Skipped { reason }));
    let call = Call::new("ADD", &place.socket());
    call.succeeds(PREVIOUS);
    let said = String::from_utf8_lossy(&call.run().stderr).into_owned();
    assert!(
        said.contains("shop/web-0") && said.contains("it has no istio-proxy"),
        "{said}"
    );
}

#[test]
fn a_pod_that_cannot_be_captured_does_not_start_and_says_why() {
    let place = Place::new();
    let _agent = Agent::start(&place, failing("the annotation is \"x\""));
    let error = Call::new("ADD", &place.socket()).fails(100, &["shop/web-0"]);
    assert_eq!(error["details"], "the annotation is \"x\"");
    assert_eq!(error["cniVersion"], "1.0.0");
}

#[test]
fn check_fails_on_the_agents_word_only() {
    let place = Place::new();
    let call = Call::new("CHECK", &place.socket());
    call.succeeds("");
    let agent = Agent::captures(&place);
    call.succeeds("");
    assert!(agent.heard.all()[0].starts_with("check shop/web-0"));
    drop(agent);
    let _agent = Agent::start(&place, failing("no program is attached"));
    call.fails(101, &["no program is attached"]);
}

#[test]
fn del_and_gc_are_told() {
    let place = Place::new();
    let agent = Agent::captures(&place);
    let mut del = Call::new("DEL", &place.socket());
    del.succeeds("");
    del.netns = "";
    del.succeeds("");
    let valid = json!({"cni.dev/valid-attachments": [
        {"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth0"},
    ]});
    let input = conf(&place.socket(), "1.1.0", &valid);
    Call::new("GC", &place.socket()).input(input).succeeds("");
    // The specification requires the list.
    Call::new("GC", &place.socket()).succeeds("");
    assert_eq!(
        agent.heard.all(),
        ["del c1 netns=true", "del c1 netns=false", "gc"]
    );
}

/// Without the agent, the log says whose sandbox it was about.
#[test]
fn del_without_an_agent_names_the_pod() {
    let place = Place::new();
    let output = Call::new("DEL", &place.socket()).run();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("DEL shop/web-0: could not notify the agent"),
        "{said}"
    );
}

#[test]
fn version_is_answered_without_a_configuration() {
    for input in [r#"{"cniVersion":"0.4.0"}"#, ""] {
        let output = Call::new("VERSION", Path::new("/none")).input(input).run();
        assert!(output.status.success());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for version in SUPPORTED {
            let supported = answer["supportedVersions"].as_array().expect("a list");
            assert!(supported.contains(&version.into()), "{answer}");
        }
    }
}

/// As Multus calls a network of its own.
#[test]
fn add_without_a_previous_result_answers_an_empty_one() {
    let place = Place::new();
    let _agent = Agent::captures(&place);
    for version in SUPPORTED {
        let conf = json!({
            "cniVersion": version, "name": "interceptor-cni", "type": "interceptor-cni",
            "socket": place.socket(),
        });
        let output = Call::new("ADD", &place.socket())
            .input(conf.to_string())
            .run();
        let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"], json!([]));
    }
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
    let place = Place::new();
    let agent = Agent::captures(&place);
    let taken = Listener::bind(&place.socket()).err();
    assert!(matches!(taken, Some(BindError::Taken(_))), "{taken:?}");
    drop(agent);
    assert!(place.socket().exists(), "as of one that was killed");
    let _listener = Listener::bind(&place.socket()).expect("the place of a dead agent");
}

#[test]
fn only_root_may_use_the_socket() {
    use std::os::unix::fs::MetadataExt as _;
    let place = Place::new();
    let _agent = Agent::captures(&place);
    let mode = place.socket().metadata().expect("a socket").mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A plugin of another release.
#[test]
fn what_the_agent_does_not_know_is_answered_by_its_name() {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixStream,
    };
    let place = Place::new();
    let agent = Agent::captures(&place);
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(place.socket()).expect("an agent");
        writeln!(stream, "{request}").expect("a listener");
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .expect("an answer");
        answer
    };
    let known = r#"{"protocol":1,"release":"9.9","wait_ms":1000,"verb":"status","new_field":[1]}"#;
    assert_eq!(ask(known), "{\"result\":\"ok\"}\n");
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
        let answer = ask(request);
        assert!(
            answer.contains("unknown") && answer.contains(says),
            "{answer}"
        );
    }
    assert_eq!(agent.heard.all(), Vec::<String>::new());
    // Release 0.1.0 sends fields that the agent does not read.
    let old = r#"{"protocol":1,"release":"0.1.0","wait_ms":1000,"verb":"gc","network":"net","container_ids":["c1"]}"#;
    assert_eq!(ask(old), "{\"result\":\"ok\"}\n");
    let old = r#"{"protocol":1,"release":"0.1.0","wait_ms":1000,"verb":"add","container_id":"c1","netns":"/n","ifname":"eth0","pod":{"namespace":"shop","name":"web-0"},"uid":"11-22"}"#;
    assert_eq!(ask(old), "{\"result\":\"captured\"}\n");
    assert_eq!(agent.heard.all(), ["gc", "add shop/web-0 11-22 /n"]);
}
