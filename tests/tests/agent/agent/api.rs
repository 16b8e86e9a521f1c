//! The agent's HTTP API: the pods of its node, captured or not, with rules and explanations.

use std::process::Output;

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    node::{AgentProcess, Manifest, Node, Pod, REMOTE},
};
use serde_json::{Value, json};

use super::{expect_captured, new_node, of_mesh};

struct Scene {
    agent: AgentProcess,
    captured: Pod,
    _skipped: Pod,
    _node: Node,
}

impl Scene {
    fn new(name: &str) -> Self {
        let node = new_node();
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let captured = node.run(of_mesh(&node, name)).expect("a pod");
        let plain = Manifest::plain(&format!("{name}-plain"), &node.new_uid());
        let skipped = node.run(plain).expect("a pod");
        expect_captured(&captured);
        Self {
            agent,
            captured,
            _skipped: skipped,
            _node: node,
        }
    }

    fn name(&self) -> String {
        let manifest = &self.captured.manifest;
        format!("{}/{}", manifest.namespace, manifest.name)
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = self.agent.api(path).expect("a response");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).expect("JSON")
    }

    fn error(&self, path: &str) -> (u16, String) {
        self.agent.api(path).expect("a response")
    }
}

/// What a command prints.
fn printed(command: &[&str]) -> Value {
    let mut interceptor = bounded(interceptor::binary());
    interceptor.args(command).args(["-o", "json"]);
    let Output { stdout, stderr, .. } = output(&mut interceptor, "").expect("a command");
    serde_json::from_slice(&stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)))
}

#[test]
fn the_api_has_what_status_and_explain_print() {
    let scene = Scene::new("api-captured");
    let name = scene.name();
    let status = scene.json(&format!("/v1/pods/{name}"));
    assert_eq!(json!([status]), printed(&["status", &name]));
    let all = scene.json("/v1/pods");
    let all = all.as_array().expect("an array");
    assert!(all.contains(&status), "{all:#?}");
    for (query, options) in [
        ("", &[][..]),
        ("&protocol=udp", &["--protocol", "udp"]),
        (
            "&from_uid=1337&from_gid=1337",
            &["--from", "uid=1337,gid=1337"],
        ),
        ("&inbound=true", &["--inbound"]),
    ] {
        let explained = scene.json(&format!("/v1/pods/{name}/explain?to={REMOTE}{query}"));
        let command = [&["explain", &name, "--to", REMOTE], options].concat();
        assert_eq!(explained, printed(&command), "{query}");
    }
    let rules = scene.get(&format!("/v1/pods/{name}/rules"));
    assert!(rules.contains("# outbound_port = 15001"), "{rules}");
    assert!(
        rules.contains("-A ISTIO_OUTPUT -j ISTIO_REDIRECT"),
        "{rules}"
    );
}

#[test]
fn the_api_has_the_states_of_all_pods_with_the_reasons() {
    let scene = Scene::new("api-state");
    let health = scene.json("/v1/health");
    assert_eq!(health["ready"], json!(true));
    assert_eq!(health["problems"], json!([]));
    let states = scene.json("/v1/states");
    let states = states.as_array().expect("an array");
    let found: Vec<_> = states
        .iter()
        .map(|pod| json!([pod["name"], pod["state"], pod["reason"]]))
        .collect();
    for expected in [
        json!([
            "api-state",
            "captured",
            "a sidecar was injected into the pod"
        ]),
        json!([
            "api-state-plain",
            "skipped",
            "it has no istio-proxy container"
        ]),
    ] {
        assert!(found.contains(&expected), "{expected}: {found:#?}");
    }
}

#[test]
fn errors_of_the_api_name_what_is_wrong() {
    let scene = Scene::new("api-error");
    let name = scene.name();
    for (path, status, text) in [
        (
            "/v1/pods/shop/no-such-pod".to_owned(),
            404,
            "no captured pod of this node is named shop/no-such-pod",
        ),
        (
            format!("/v1/pods/{name}/explain?to=10.2.0.9"),
            400,
            "to: expected an IP address and a port",
        ),
        (
            format!("/v1/pods/{name}/explain?to={REMOTE}&uid=1"),
            400,
            "unknown field `uid`",
        ),
        (
            format!("/v1/pods/{name}/explain?to={REMOTE}&interface=eth0"),
            400,
            "interface: only of inbound connections",
        ),
    ] {
        let (found, body) = scene.error(&path);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}
