//! SIGTERM: the agent uninstalls only if its deployment is being deleted, and pods stay captured.

use std::{thread, time::Duration};

use interceptor_testkit::{
    lab::wait_until,
    manifests,
    node::{AgentProcess, NAMESPACE, Node, Pod},
};
use serde_json::{Value, json};

use super::{expect_captured, new_node, of_mesh};

const WITH_OURS: [&str; 2] = ["ptp", "interceptor-cni"];

/// The watches of pods, of the agent's namespace and of its `ServiceAccount`.
const WATCHES: usize = 3;

/// A node with an agent that has captured a pod.
pub(super) struct Installed {
    pub(super) node: Node,
    pub(super) agent: AgentProcess,
    pub(super) pod: Pod,
}

impl Installed {
    pub(super) fn new() -> Self {
        let node = new_node();
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let pod = node.run(of_mesh(&node, "web")).expect("a pod");
        expect_captured(&pod);
        assert_eq!(node.runtime.plugins().expect("plugins"), WITH_OURS);
        let watches = wait_until("watches", || Ok(node.api.watches() == WATCHES));
        watches.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
        Self { node, agent, pod }
    }

    /// Sends SIGTERM as kubelet does, and returns whether the agent has uninstalled.
    pub(super) fn terminate(&mut self) -> bool {
        let status = self.agent.terminate().expect("it exits");
        assert!(status.success(), "{status}\n{}", self.agent.log());
        expect_captured(&self.pod);
        is_uninstalled(&self.node)
    }

    /// The deployed object of this kind.
    fn deployed(&self, kind: &str) -> Value {
        let object = manifests::only(manifests::base().expect("a base"), kind);
        let metadata = &object.expect("an object")["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let api_version = if kind == "DaemonSet" { "apps/v1" } else { "v1" };
        let object = self
            .node
            .api
            .get(api_version, kind, text("namespace"), text("name"));
        object.expect("an object that is deployed")
    }

    fn delete(&self, kinds: &[&str]) {
        let objects = manifests::base().expect("a base").iter();
        for object in objects.filter(|object| kinds.iter().any(|kind| object["kind"] == *kind)) {
            self.node.api.delete(object).expect("deleted");
        }
    }

    #[track_caller]
    fn expect_log(&self, words: &[&str]) {
        let log = self.agent.log();
        let line = log.lines().find(|line| line.contains("SIGTERM"));
        let line = line.unwrap_or_else(|| panic!("no SIGTERM in:\n{log}"));
        for word in words {
            assert!(line.contains(word), "no {word:?} in: {line}");
        }
    }
}

/// Whether the agent's files are removed and its plugin lets every new pod start. While the pod is
/// captured, the plugin stays in the list, so that it is called when the pod is deleted.
pub(super) fn is_uninstalled(node: &Node) -> bool {
    let network = node.runtime.network().expect("a network");
    let is_uninstalled = network["plugins"][1]["uninstalled"] == true;
    assert_eq!(node.runtime.plugins().expect("plugins"), WITH_OURS);
    let files = ["agent.sock", "agent.sock.lock"];
    let left = files.map(|file| node.dir().join(file).exists());
    assert_eq!(left, [!is_uninstalled; 2]);
    is_uninstalled
}

#[test]
fn the_plugin_stays_while_the_daemon_set_exists() {
    let mut installed = Installed::new();
    assert!(!installed.terminate());
    installed.expect_log(&["interceptor-system/interceptor exists"]);
}

#[test]
fn the_plugin_stays_in_an_outage() {
    let mut installed = Installed::new();
    installed.node.api.set_unavailable(true);
    installed.node.api.disconnect();
    assert!(!installed.terminate());
    installed.expect_log(&["503", "interceptor-system/interceptor-abcde", "uninstall"]);
}

/// The missing permission is logged.
#[test]
fn the_plugin_stays_if_the_agent_lacks_permissions() {
    for (bindings, words) in [
        (
            &["RoleBinding"][..],
            [
                "cannot get the DaemonSet interceptor-system/interceptor",
                "403",
                "daemonsets",
            ],
        ),
        (
            &["RoleBinding", "ClusterRoleBinding"],
            [
                "cannot get the pod interceptor-system/interceptor-abcde",
                "403",
                "pods",
            ],
        ),
    ] {
        let mut installed = Installed::new();
        installed.delete(bindings);
        assert!(!installed.terminate());
        installed.expect_log(&words);
    }
}

/// As `kubectl replace --force` does: another agent will start.
#[test]
fn the_plugin_stays_if_everything_is_created_again() {
    let mut installed = Installed::new();
    installed.delete(&["ServiceAccount", "RoleBinding", "DaemonSet"]);
    let base = manifests::base().expect("a base");
    installed.node.deploy(base).expect("deployed again");
    assert!(!installed.terminate());
}

#[test]
fn the_plugin_is_removed_with_the_daemon_set() {
    let mut installed = Installed::new();
    let mut set = installed.deployed("DaemonSet");
    set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    installed.node.api.put(set).expect("a kind");
    assert!(installed.terminate());
    let mut installed = Installed::new();
    installed.delete(&["DaemonSet"]);
    assert!(installed.terminate());
    installed.expect_log(&["the DaemonSet interceptor-system/interceptor is deleted"]);
}

/// The namespace's controller deletes pods before their `DaemonSet`, or after.
#[test]
fn the_plugin_is_removed_with_the_namespace() {
    let mut installed = Installed::new();
    installed.delete(&["Namespace"]);
    let namespace = installed.node.api.get("v1", "Namespace", "", NAMESPACE);
    assert!(namespace.expect("a namespace")["metadata"]["deletionTimestamp"].is_string());
    // The watch event needs a moment; kubelet would need longer.
    thread::sleep(Duration::from_millis(200));
    assert!(installed.terminate());
    installed.expect_log(&["namespace is being deleted"]);
}

/// kubelet may be faster than the rest of `kubectl delete`.
#[test]
fn a_deletion_shortly_after_the_permissions_counts() {
    let mut installed = Installed::new();
    installed.delete(&["RoleBinding", "ClusterRoleBinding", "DaemonSet"]);
    let api = &installed.node.api;
    let agent = &mut installed.agent;
    let account = manifests::only(manifests::base().expect("a base"), "ServiceAccount");
    let account = account.expect("an account");
    thread::scope(|scope| {
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_millis(700));
            api.delete(account)
        });
        agent.terminate().expect("it exits");
        late.join().expect("a thread").expect("deleted");
    });
    assert!(is_uninstalled(&installed.node));
    installed.expect_log(&["ServiceAccount is deleted", "401"]);
}

/// The second waits, and starts when the first has exited.
#[test]
fn a_second_agent_waits_for_the_first() {
    let node = new_node();
    let mut first = node.start_ready_agent(&[]).expect("an agent");
    let mut second = node.start_agent(&[]).expect("another");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    assert!(second.is_running().expect("a process"), "{}", second.log());
    let (status, why) = second.get("/readyz").expect("a response");
    assert_eq!(status, 503, "{why}");
    first.kill().expect("killed");
    second.wait_until_ready().expect("ready");
    let another = node.run(of_mesh(&node, "another")).expect("a pod");
    expect_captured(&another);
    expect_captured(&pod);
}
