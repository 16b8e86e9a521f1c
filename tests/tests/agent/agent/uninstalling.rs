//! Every way to uninstall ends with a node where pods start and nothing of ours is installed, whatever
//! is deleted first. What is deleted is what is deployed, as it is rendered.

use interceptor_testkit::{bpf::pins, lab::cookie, manifests, node::STRAIGHT};
use serde_json::Value;

use super::{
    dialled, expect_captured,
    leaving::{Installed, is_uninstalled},
    of_mesh,
};

fn base() -> Vec<&'static Value> {
    manifests::base().expect("a base").iter().collect()
}

/// New pods start, uncaptured, and those that are captured stay so; what ends takes along what is
/// kept for it. (That the last one takes everything along is told of the machine as a whole.)
#[track_caller]
fn expect_uninstalled(installed: Installed) {
    let Installed { node, agent, pod } = installed;
    assert!(is_uninstalled(&node), "{}", agent.log());
    let new = node.run(of_mesh(&node, "new")).expect("a pod that starts");
    assert_eq!(dialled(&new), STRAIGHT);
    expect_captured(&pod);
    let cookie = cookie(pod.netns().expect("a netns")).expect("a cookie");
    node.delete(pod).expect("deleted");
    let pins = pins::of_netns(cookie);
    assert!(!pins.exists(), "{}", pins.display());
}

/// Deletes the objects in this order, then ends the agent, as `kubectl delete`, the garbage collector
/// and kubelet do.
fn delete(objects: &[&Value]) {
    let mut installed = Installed::new();
    for object in objects {
        installed.node.api.delete(object).expect("deleted");
    }
    installed.terminate();
    expect_uninstalled(installed);
}

/// As docs/deploy.md has it: first the `DaemonSet`, then the rest.
#[test]
fn first_the_daemon_set() {
    let mut installed = Installed::new();
    let (sets, others): (Vec<_>, Vec<_>) = base()
        .into_iter()
        .partition(|object| object["kind"] == "DaemonSet");
    for set in sets {
        installed.node.api.delete(set).expect("deleted");
    }
    installed.terminate();
    for object in others {
        installed.node.api.delete(object).expect("deleted");
    }
    expect_uninstalled(installed);
}

/// `kubectl delete -k`: the namespace first, the `DaemonSet` last.
#[test]
fn everything_at_once_as_kubectl_orders_it() {
    let objects = base();
    assert_eq!(objects[0]["kind"], "Namespace");
    assert_eq!(objects[objects.len() - 1]["kind"], "DaemonSet");
    delete(&objects);
}

#[test]
fn everything_at_once_in_reverse() {
    let mut objects = base();
    objects.reverse();
    delete(&objects);
}

/// Every object is once the first that is deleted, and once the last.
#[test]
fn everything_at_once_in_every_rotation() {
    let objects = base();
    for first in 1..objects.len() {
        let mut order = objects.clone();
        order.rotate_left(first);
        delete(&order);
    }
}

/// A namespace that others have made, and keep.
#[test]
fn everything_but_the_namespace() {
    let mut objects = base();
    objects.retain(|object| object["kind"] != "Namespace");
    delete(&objects);
    // The rights to read the DaemonSet go before the ServiceAccount does.
    objects.sort_by_key(|object| object["kind"] == "ServiceAccount");
    delete(&objects);
}

/// An agent that is dead when its deployment is deleted cannot uninstall: the plugin refuses pods and
/// says what to do, and the Job does it.
#[test]
fn the_job_uninstalls_where_the_agent_was_dead() {
    let mut installed = Installed::new();
    installed.agent.kill().expect("killed");
    for object in base() {
        installed.node.api.delete(object).expect("deleted");
    }
    let node = &installed.node;
    let mut refused = node.schedule(of_mesh(node, "refused")).expect("a pod");
    let error = refused.start_sandbox(node).expect_err("no agent");
    let error = format!("{error:#}");
    assert!(error.contains("interceptor uninstall --node"), "{error}");
    node.run_job("examples/uninstall").expect("the Job");
    refused.start_sandbox(node).expect("it starts by now");
    drop(refused);
    expect_uninstalled(installed);
}
