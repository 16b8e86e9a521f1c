//! Chained after real plugins, called one by one as a runtime does.

use std::path::Path;

use interceptor_testkit::{
    command::{bounded, run},
    interceptor,
    netns::Netns,
};
use serde_json::{Value, json};

use crate::cni::agent::{Agent, SocketDir};

const REAL: &str = "/usr/lib/cni";

/// Calls `plugin` in the network namespace of `node` for that of `pod`.
fn call(node: &Netns, pod: &Netns, verb: &str, plugin: &[&str], conf: &Value) -> String {
    let mut command = bounded("nsenter");
    command
        .arg(format!("--net={}", node.path().display()))
        .args(plugin);
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "interceptor-test-chained")
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", REAL)
        .env(
            "CNI_ARGS",
            "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=11-22;IgnoreUnknown=1",
        );
    run(&mut command, &conf.to_string()).expect("a plugin that succeeds")
}

/// The result is that of the plugins before us.
#[test]
fn after_bridge_and_host_local_their_result_is_returned() {
    let bridge = format!("{REAL}/bridge");
    assert!(
        Path::new(&bridge).exists(),
        "{bridge} is missing: apt-get install containernetworking-plugins"
    );
    let [node, pod] = ["node", "pod"].map(|name| Netns::new(name, None).expect("a namespace"));
    let dir = SocketDir::new();
    let agent = Agent::captures(&dir);
    let leases = dir.socket().with_file_name("leases");
    let own = interceptor::binary().display().to_string();
    let ours = [own.as_str(), "cni"];
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let network = json!({
            "cniVersion": version, "name": "chained", "type": "bridge", "bridge": "cni-test",
            "ipam": {"type": "host-local", "subnet": "10.77.0.0/24", "dataDir": leases},
        });
        let made = call(&node, &pod, "ADD", &[&bridge], &network);
        let previous: Value = serde_json::from_str(&made).expect("JSON");
        let entry = json!({
            "cniVersion": version, "name": "chained", "type": "interceptor-cni",
            "socket": dir.socket(), "prevResult": previous,
        });
        let result = call(&node, &pod, "ADD", &ours, &entry);
        assert_eq!(
            serde_json::from_str::<Value>(&result).expect("JSON"),
            previous
        );
        let request = agent.calls.all().pop().expect("a request");
        assert!(request.starts_with("add shop/web-0"), "{request}");
        // In the runtime's order: the last first.
        call(&node, &pod, "DEL", &ours, &entry);
        call(&node, &pod, "DEL", &[&bridge], &network);
    }
}
