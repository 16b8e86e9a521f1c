//! Other programs that change a pod's connections or its network.

use interceptor_testkit::{
    bpf::programs::{Action, AttachType, Mode, Program},
    lab::{dial, wait_until},
};

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

const SERVICE: &str = "10.96.0.1:80";

/// As Cilium and Calico do: a program at the root cgroup connects clients of a service to a backend.
#[test]
fn a_root_load_balancer_does_not_change_what_the_proxy_sees() {
    let node = new_node();
    let rewriting = Action::Rewrite {
        from: [10, 96, 0, 1],
        to: [10, 2, 0, 9],
    };
    let balancer = Program::load("balancer", AttachType::Connect4, rewriting).expect("a program");
    let root = node.cgroup.path();
    balancer.attach(root, Mode::Multiple).expect("attached");
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let dial_service = |pod: &interceptor_testkit::node::Pod, who: &str| {
        dial(pod.container(who).expect("a container"), SERVICE).expect("a call")
    };
    assert_eq!(dial_service(&there, "app"), "remote:80");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&there, || agent.log());
    let by_cni = node.run(of_mesh(&node, "by-cni")).expect("a pod");
    for pod in [&there, &by_cni] {
        assert_eq!(
            dial_service(pod, "app"),
            format!("proxy:15001 for {SERVICE}")
        );
        // The proxy's own connection reaches the backend of the balancer.
        assert_eq!(dial_service(pod, "proxy"), "remote:80");
    }
}

/// As with Multus or a VPN.
#[test]
fn a_later_interface_is_included() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let app = pod.app().expect("the app");
    expect_captured(&pod);
    let to = "10.9.0.2:8080";
    // Not an address of the pod yet.
    assert_eq!(
        dial(app, to).expect("a call"),
        format!("proxy:15001 for {to}")
    );
    let netns = pod.netns().expect("a netns");
    netns.cable("net1", &node.host, "net1", 9).expect("a cable");
    netns
        .ip("addr add 10.9.0.2/24 dev net1")
        .expect("an address");
    node.host
        .ip("addr add 10.9.0.1/24 dev net1")
        .expect("an address");
    let own = || Ok(dial(app, to)? == "app:8080");
    let followed = wait_until("the pod's own address", own);
    followed.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let captured = format!("proxy:15006 for {to}");
    let inward = || Ok(dial(&node.client, to)? == captured);
    wait_until("inbound capture", inward).expect("followed");
    // Outbound connections by the interface are captured.
    assert_eq!(
        dial(app, "10.9.0.1:80").expect("a call"),
        "proxy:15001 for 10.9.0.1:80"
    );
    netns.ip("link del net1").expect("deleted");
    let others = || Ok(dial(app, to)? == format!("proxy:15001 for {to}"));
    let followed = wait_until("another pod's address", others);
    followed.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    assert_eq!(dialled(&pod), interceptor_testkit::node::CAPTURED);
}
