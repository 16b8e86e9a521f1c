//! Static pods: their mirror object in the API has a UID that kubelet does not use.

use interceptor_testkit::{
    lab::wait_until,
    node::{AgentProcess, Manifest, Node},
};

use super::{expect_captured, new_node, until_captured};

/// kubelet's UID of a static pod is a digest in hexadecimal.
fn static_pod(node: &Node, name: &str) -> Manifest {
    let digest = node.new_uid().replace('-', "");
    Manifest::of_mesh(name, &digest).mirrored_as(&node.new_uid())
}

fn until_counted(agent: &AgentProcess, captured: f64) {
    let count = |state| {
        let metric = format!(r#"interceptor_pods{{state="{state}"}}"#);
        agent.metric(&metric)
    };
    let counted = wait_until("the metrics", || {
        let counts = (count("captured")?, count("pending")?);
        Ok(counts == (Some(captured), Some(0.0)))
    });
    counted.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
}

#[test]
fn a_static_pod_is_known_to_the_next_agent() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(static_pod(&node, "static")).expect("a pod");
    expect_captured(&pod);
    until_counted(&agent, 1.0);
    agent.kill().expect("killed");
    let agent = node.start_ready_agent(&[]).expect("another");
    until_counted(&agent, 1.0);
    expect_captured(&pod);
    node.delete(pod).expect("deleted");
    until_counted(&agent, 0.0);
}

#[test]
fn a_running_static_pod_is_repaired() {
    let node = new_node();
    let pod = node.run(static_pod(&node, "static")).expect("a pod");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&pod, || agent.log());
    until_counted(&agent, 1.0);
}
