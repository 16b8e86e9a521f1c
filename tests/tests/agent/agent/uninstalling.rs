//! After every kind of uninstallation, and in every order of deletion, pods start and nothing of ours
//! is installed. The deleted objects are the rendered manifests.

use interceptor_testkit::{bpf::pins, lab::cookie, manifests, node::STRAIGHT};
use serde_json::Value;

use super::{
    dialled, expect_captured, of_mesh,
    shutdown::{Installed, is_uninstalled},
};

fn base() -> Vec<&'static Value> {
    manifests::base().expect("a base").iter().collect()
}

/// New pods start uncaptured, captured pods stay captured, and a deleted pod's pins are deleted. (Other
/// tests check that the last pod removes everything from the machine.)
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

/// Deletes the objects in this order, then terminates the agent, as `kubectl delete`, the garbage
/// collector and kubelet do.
fn delete(objects: &[&Value]) {
    let mut installed = Installed::new();
    for object in objects {
        installed.node.api.delete(object).expect("deleted");
    }
    installed.terminate();
    expect_uninstalled(installed);
}

/// As in docs/deploy.md: first the `DaemonSet`, then the rest.
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

/// Every object is once deleted first, and once last.
#[test]
fn everything_at_once_in_every_rotation() {
    let objects = base();
    for first in 1..objects.len() {
        let mut order = objects.clone();
        order.rotate_left(first);
        delete(&order);
    }
}

/// In an existing namespace that is kept.
#[test]
fn everything_but_the_namespace() {
    let mut objects = base();
    objects.retain(|object| object["kind"] != "Namespace");
    delete(&objects);
    // The permissions to read the DaemonSet are deleted before the ServiceAccount.
    objects.sort_by_key(|object| object["kind"] == "ServiceAccount");
    delete(&objects);
}

/// Without an agent when the deployment is deleted, the plugin refuses pods with instructions, and the
/// Job uninstalls.
#[test]
fn the_job_uninstalls_a_node_without_an_agent() {
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
    refused.start_sandbox(node).expect("it starts now");
    drop(refused);
    expect_uninstalled(installed);
}
