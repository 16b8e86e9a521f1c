//! Calls that must succeed without an agent.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cni::{Call, PREVIOUS, agent::SocketDir, conf};

#[test]
fn excluded_namespaces_and_the_agent_start_without_an_agent() {
    let dir = SocketDir::new();
    let agent_pods = json!({"namespace": "mesh", "prefix": "interceptor-agent-"});
    let start = Instant::now();
    Call::new("ADD", &dir.socket())
        .pod("kube-system", "coredns-1")
        .succeeds(PREVIOUS);
    let own = json!({ "agentPods": agent_pods, "excludeNamespaces": ["storage"] });
    let own = conf(&dir.socket(), "1.0.0", &own);
    for (namespace, name) in [("mesh", "interceptor-agent-x7k2p"), ("storage", "csi-0")] {
        let call = Call::new("ADD", &dir.socket()).pod(namespace, name);
        call.input(own.clone()).succeeds(PREVIOUS);
    }
    // Only the configured namespaces are excluded.
    let call = Call::new("ADD", &dir.socket()).pod("mesh", "web-0");
    call.input(own).fails(11, &["mesh/web-0"]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_sandbox_without_kubernetes_starts() {
    let mut call = Call::new("ADD", SocketDir::new().socket().as_path());
    call.pod = None;
    call.succeeds(PREVIOUS);
}

#[test]
fn del_and_gc_always_succeed() {
    let dir = SocketDir::new();
    let mut del = Call::new("DEL", &dir.socket());
    for netns in ["/var/run/netns/cni-1", "/var/run/netns/cni-1", ""] {
        del.netns = netns;
        del.succeeds("");
    }
    for garbage in [
        "",
        "garbage",
        "[]",
        "{\"socket\":7}",
        "{\"cniVersion\":\"0.1.0\"}",
    ] {
        Call::new("DEL", &dir.socket()).input(garbage).succeeds("");
        Call::new("GC", &dir.socket()).input(garbage).succeeds("");
    }
}

/// Called every five seconds: a node whose plugins fail starts no pods.
#[test]
fn status_succeeds_without_an_agent() {
    let dir = SocketDir::new();
    Call::new("STATUS", &dir.socket()).succeeds("");
    Call::new("STATUS", &dir.socket())
        .input("garbage")
        .succeeds("");
}

#[test]
fn with_failure_policy_ignore_pods_start() {
    let dir = SocketDir::new();
    let ignore = conf(&dir.socket(), "1.0.0", &json!({"failurePolicy": "Ignore"}));
    let call = Call::new("ADD", &dir.socket()).input(ignore);
    call.succeeds(PREVIOUS);
    let stderr = String::from_utf8_lossy(&call.run().stderr).into_owned();
    assert!(stderr.contains("starts uncaptured"), "{stderr}");
}
