//! Commands on the node know the names of pods that the agent has captured, without the agent.

use std::process::Output;

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};
use serde_json::{Value, json};

use super::{expect_captured, new_node, of_mesh};

#[test]
fn status_has_the_names_of_the_agents_pods() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    drop(agent);
    let mut status = bounded(interceptor::binary());
    status.args(["status", "-o", "json"]);
    let Output { stdout, .. } = output(&mut status, "").expect("a status");
    let pods: Vec<Value> = serde_json::from_slice(&stdout).expect("JSON");
    let names: Vec<_> = pods.iter().map(|pod| &pod["pod"]["name"]).collect();
    assert!(names.contains(&&json!("web")), "{names:?}");
}
