//! The start: an app that connects at its first instruction is served by the proxy or refused, and
//! never reaches a server past the proxy. Jobs complete.

use interceptor_testkit::{
    node::{ContainerProcess, Node, ObjectPod, test_images},
    sidecar::{ATTEMPTS, Attempt, FIRST_SOURCE_PORT, RecordingServer},
};
use serde_json::Value;

use super::{container, create, new_node, plain};

const REMOTE: &str = "10.2.0.9:8000";
const REMOTE_PORT: u16 = 8000;
/// How often each race is run.
const RUNS: u32 = 3;
const REFUSED: &str = "ECONNREFUSED";

/// A pod that ends after its first response.
fn manifest(run: u32) -> Value {
    plain(
        &format!("job-{run}"),
        &[container("app", &["app", "first", REMOTE])],
    )
}

fn set_up(node: &Node, run: u32) -> ObjectPod {
    let created = create(node, &manifest(run));
    let images = test_images().expect("images");
    node.set_up(&created, images).expect("a sandbox")
}

fn next(node: &Node, pod: &mut ObjectPod) -> Option<String> {
    pod.start_next(node).expect("a container")
}

/// The app's next attempt.
fn attempt(pod: &mut ObjectPod) -> Attempt {
    let line = pod.container("app").and_then(ContainerProcess::line);
    Attempt::parse(&line.expect("an attempt")).expect("JSON")
}

/// The app's own ports never reach the server: its connections are the proxy's.
fn expect_none_direct(remote: &RecordingServer) {
    let of_app = FIRST_SOURCE_PORT..FIRST_SOURCE_PORT + ATTEMPTS;
    let clients = remote.clients();
    let direct: Vec<_> = clients
        .iter()
        .filter(|client| of_app.contains(&client.port()))
        .collect();
    assert!(direct.is_empty(), "{direct:?}");
}

fn expect_served(attempt: &Attempt) {
    let response = attempt.response.as_ref();
    let response = response.unwrap_or_else(|error| panic!("{error}: {attempt:?}"));
    assert_eq!(response.server, "remote:8000");
    assert_ne!(response.peer.port(), attempt.source_port);
}

#[test]
fn with_a_native_sidecar_the_first_connection_is_served() {
    let node = new_node();
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    let _webhook = node.start_webhook(&[]).expect("a webhook");
    let remote = RecordingServer::start(&node.host, "remote", REMOTE_PORT).expect("a server");
    for run in 0..RUNS {
        let mut pod = set_up(&node, run);
        assert_eq!(next(&node, &mut pod).as_deref(), Some("istio-proxy"));
        assert_eq!(next(&node, &mut pod).as_deref(), Some("app"));
        assert_eq!(next(&node, &mut pod), None);
        expect_served(&attempt(&mut pod));
        // The app has exited: the sidecar does not keep the Job.
        pod.complete(&node).expect("completed");
        pod.wait_for_exit().expect("no process");
    }
    expect_none_direct(&remote);
    assert_eq!(remote.clients().len(), RUNS as usize);
}

#[test]
fn without_native_sidecar_an_early_connection_is_refused() {
    let node = new_node();
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    let webhook = node
        .start_webhook(&["--native-sidecar=false"])
        .expect("a webhook");
    let remote = RecordingServer::start(&node.host, "remote", REMOTE_PORT).expect("a server");
    for run in 0..RUNS {
        let mut pod = set_up(&node, run);
        assert_eq!(
            next(&node, &mut pod).as_deref(),
            Some("app"),
            "{}",
            webhook.log()
        );
        // The proxy's container starts when its image is there.
        let first = attempt(&mut pod);
        assert_eq!(first.response, Err(REFUSED.to_owned()));
        assert_eq!(remote.clients().len(), run as usize);
        assert_eq!(next(&node, &mut pod).as_deref(), Some("istio-proxy"));
        let mut last = attempt(&mut pod);
        for _ in 0..ATTEMPTS {
            if last.response.is_ok() {
                break;
            }
            assert_eq!(last.response, Err(REFUSED.to_owned()));
            last = attempt(&mut pod);
        }
        expect_served(&last);
    }
    expect_none_direct(&remote);
    assert_eq!(remote.clients().len(), RUNS as usize);
}
