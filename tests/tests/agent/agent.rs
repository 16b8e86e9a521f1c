//! The node agent, against an API server, on a node laid out as kubelet does.

mod api;
mod api_faults;
mod bug_report;
mod closing;
mod idle;
mod istio_cni;
mod killed;
mod kubectl;
mod limits;
mod live;
mod messages;
mod names;
mod new_pods;
mod node;
mod other_programs;
mod probes;
mod refused;
mod relists;
mod reports;
mod sandboxes;
mod scale;
mod shutdown;
mod static_pods;
mod uninstalling;
mod unsupported;
mod without_agent;

use interceptor_testkit::{
    lab::{dial, wait_until},
    node::{CAPTURED, Driver, Manifest, Node, Pod, REMOTE},
};

fn new_node() -> Node {
    Node::new(Driver::Systemd).expect("a node")
}

fn of_mesh(node: &Node, name: &str) -> Manifest {
    Manifest::of_mesh(name, &node.new_uid())
}

/// The server that the pod's app reaches at [`REMOTE`].
fn dialled(pod: &Pod) -> String {
    dial(pod.app().expect("the app"), REMOTE).expect("a call")
}

fn expect_captured(pod: &Pod) {
    assert_eq!(dialled(pod), CAPTURED);
}

/// Waits until the pod is captured. A failure shows the agent's log.
fn until_captured(pod: &Pod, log: impl Fn() -> String) {
    let captured = wait_until("capture", || Ok(dialled(pod) == CAPTURED));
    captured.unwrap_or_else(|error| panic!("{error}:\n{}", log()));
}
