//! A new list of all pods, as after every interruption of the watch.

use std::{fs, thread, time::Duration};

use interceptor_testkit::{
    actor::{Actor, process::Namespace},
    bpf::pins,
    lab::{cookie, dial, wait_until},
    netns::Netns,
    node::{Call, Node, REMOTE},
    users::APP,
};

use super::{expect_captured, new_node, of_mesh};

/// The number of complete lists that the agent has received.
fn lists(log: &str) -> usize {
    log.matches("received the node's pod list").count()
}

fn expire_and_wait(node: &Node, log: impl Fn() -> String) {
    let before = lists(&log());
    node.api.expire();
    let listed = wait_until("a list", || Ok(lists(&log()) > before));
    listed.unwrap_or_else(|error| panic!("{error}\n{}", log()));
}

/// The list is older than the pod, and the pod has no process yet. ADD has attached the pod.
#[test]
fn a_pod_missing_from_a_stale_list_stays_captured() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
    let netns = Netns::mounted(&node.dir().join("netns/cni-stale")).expect("a netns");
    let call = Call {
        id: "stale",
        netns: netns.path(),
        pod: &pod.manifest,
    };
    let added = node.runtime.add(&node.host, &call).expect("it is captured");
    node.api.leave_out("web");
    expire_and_wait(&node, || agent.log());
    // A deleted pod would be detached at once.
    thread::sleep(Duration::from_secs(1));
    let place = pod.cgroup().join("app");
    fs::create_dir(&place).expect("a cgroup");
    let at = Namespace::At(netns.path().to_owned());
    let app = Actor::start("app", APP, at, Some(&place)).expect("the app");
    let result = dial(&app, REMOTE).expect("a call");
    // Captured, as no proxy listens.
    assert_eq!(result, "ECONNREFUSED", "{}", agent.log());
    drop(app);
    node.runtime.del(&node.host, &call, &added).expect("undone");
}

/// The pod was deleted while the watch was interrupted.
#[test]
fn a_pod_that_was_deleted_before_a_list_is_cleaned_up() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let stays = node.run(of_mesh(&node, "stays")).expect("a pod");
    expect_captured(&pod);
    let cookie = cookie(pod.netns().expect("a netns")).expect("a cookie");
    let pins = pins::of_netns(cookie);
    assert!(pins.exists(), "{}", pins.display());
    node.api.set_unavailable(true);
    node.api.disconnect();
    pod.vanish().expect("deleted");
    let removed = node.api.remove("v1", "Pod", "shop", "web");
    assert!(removed.expect("a kind"));
    node.api.forget();
    node.api.set_unavailable(false);
    let cleaned = wait_until("the pins are deleted", || Ok(!pins.exists()));
    cleaned.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    expect_captured(&stays);
}
