//! Without an agent: what must go on all the same.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cni::{Call, PREVIOUS, agent::Place, conf};

#[test]
fn excluded_namespaces_and_the_agent_start_without_an_agent() {
    let place = Place::new();
    let agent_pods = json!({"namespace": "mesh", "prefix": "interceptor-agent-"});
    let start = Instant::now();
    Call::new("ADD", &place.socket())
        .pod("kube-system", "coredns-1")
        .succeeds(PREVIOUS);
    let own = json!({ "agentPods": agent_pods, "excludeNamespaces": ["storage"] });
    let own = conf(&place.socket(), "1.0.0", &own);
    for (namespace, name) in [("mesh", "interceptor-agent-x7k2p"), ("storage", "csi-0")] {
        let call = Call::new("ADD", &place.socket()).pod(namespace, name);
        call.input(own.clone()).succeeds(PREVIOUS);
    }
    // Excluded is what the setting says, and nothing else.
    let call = Call::new("ADD", &place.socket()).pod("mesh", "web-0");
    call.input(own).fails(11, &["mesh/web-0"]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_is_no_pod_of_kubernetes_starts() {
    let mut call = Call::new("ADD", Place::new().socket().as_path());
    call.pod = None;
    call.succeeds(PREVIOUS);
}

#[test]
fn del_always_succeeds_without_an_agent_twice_and_with_garbage() {
    let place = Place::new();
    let mut del = Call::new("DEL", &place.socket());
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
        Call::new("DEL", &place.socket())
            .input(garbage)
            .succeeds("");
        Call::new("GC", &place.socket()).input(garbage).succeeds("");
    }
}

/// Asked every five seconds: a node whose plugins are not well gets no pods.
#[test]
fn status_never_fails_a_node_for_want_of_the_agent() {
    let place = Place::new();
    Call::new("STATUS", &place.socket()).succeeds("");
    Call::new("STATUS", &place.socket())
        .input("garbage")
        .succeeds("");
}

#[test]
fn without_an_agent_pods_start_where_the_setting_says_so() {
    let place = Place::new();
    let pass = conf(
        &place.socket(),
        "1.0.0",
        &json!({"failurePolicy": "Ignore"}),
    );
    let call = Call::new("ADD", &place.socket()).input(pass);
    call.succeeds(PREVIOUS);
    let said = String::from_utf8_lossy(&call.run().stderr).into_owned();
    assert!(said.contains("starts uncaptured"), "{said}");
}
