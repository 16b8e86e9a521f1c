//! The agent's HTTP API: the pods of its node, captured or not, with rules and explanations.

use std::{net::TcpListener, process::Output};

use interceptor_testkit::{
    command::{bounded, output, run},
    interceptor,
    lab::wait_until,
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

/// Requests the health from the page's port, with a Host.
const REQUEST: &str = r#"
exec 3<> /dev/tcp/127.0.0.1/15029 &&
printf 'GET /v1/health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3 &&
cat <&3
"#;

/// The response to a process of a user on the node.
fn request(node: &Node, uid: u32, host: &str) -> Option<String> {
    let mut command = bounded("nsenter");
    command
        .arg(format!("--net={}", node.host.path().display()))
        .args(["setpriv", "--clear-groups"])
        .args([format!("--reuid={uid}"), format!("--regid={uid}")])
        .args(["bash", "-c", REQUEST, "bash", host]);
    run(&mut command, "").ok()
}

#[test]
fn the_page_is_only_for_root_and_a_loopback_host() {
    let node = new_node();
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    wait_until("the page", || Ok(request(&node, 0, "localhost").is_some())).expect("the page");
    for (uid, host, status, text) in [
        (0, "localhost:8080", "200 OK", "\"ready\":true"),
        (0, "[::1]:15029", "200 OK", "\"ready\":true"),
        (1000, "localhost", "403 Forbidden", "only root of this node"),
        (
            0,
            "agent.example.org",
            "403 Forbidden",
            "must be localhost or a loopback address",
        ),
    ] {
        let response = request(&node, uid, host).expect("a response");
        let start = format!("HTTP/1.1 {status}\r\n");
        assert!(response.starts_with(&start), "{uid} {host}: {response}");
        assert!(response.contains(text), "{uid} {host}: {response}");
        for header in [
            "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "cache-control: no-store\r\n",
            "referrer-policy: no-referrer\r\n",
        ] {
            assert!(response.contains(header), "{header}: {response}");
        }
    }
}

#[test]
fn an_agent_waits_for_the_port_of_the_page() {
    let node = new_node();
    let bind = || Ok(TcpListener::bind("127.0.0.1:15029")?);
    let other = node.host.enter(bind).expect("a listener");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let warned = wait_until("a warning", || {
        Ok(agent
            .log()
            .contains("the page is not available, as the agent cannot listen on 127.0.0.1:15029"))
    });
    warned.unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
    drop(other);
    wait_until("the page", || Ok(request(&node, 0, "localhost").is_some())).expect("the page");
}

#[test]
fn an_agent_with_page_port_0_has_no_page() {
    let node = new_node();
    let _agent = node
        .start_ready_agent(&["--page-port", "0"])
        .expect("an agent");
    assert_eq!(request(&node, 0, "localhost"), None);
}
