//! Removed and new sandboxes.

use interceptor_testkit::lab::wait_until;

use super::{dialled, expect_captured, new_node, of_mesh};

#[test]
fn cni_del_succeeds_repeatedly_and_without_the_agent() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let id = pod.sandbox_id().expect("an ID").to_owned();
    agent.kill().expect("killed");
    pod.stop_sandbox(&node).expect("undone");
    for _ in 0..2 {
        pod.del_again(&node, &id).expect("undone again");
    }
}

/// The pod's cgroup and UID stay; the network namespace is new.
#[test]
fn a_new_sandbox_of_the_same_pod_is_captured() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    for _ in 0..2 {
        pod.stop_sandbox(&node).expect("stopped");
        pod.start_sandbox(&node).expect("a sandbox");
        pod.start_app(&node).expect("the app");
        assert_eq!(dialled(&pod), "ECONNREFUSED", "{}", agent.log());
        pod.start_proxy(&node).expect("the proxy");
        expect_captured(&pod);
    }
    let captured = || agent.metric(r#"interceptor_pods{state="captured"}"#);
    wait_until("one pod", || Ok(captured()? == Some(1.0))).expect("the metric");
}
