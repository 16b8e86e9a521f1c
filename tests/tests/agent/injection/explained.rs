//! `interceptor explain` in injected pods: every annotation about capture changes a verdict.

use std::fs;

use interceptor_testkit::{
    interceptor,
    node::{Node, ObjectPod},
};
use serde_json::{Value, json};

use super::{NAMESPACE, container, create, new_node, plain};

/// A connection that the pod's annotations decide about.
#[derive(Clone, Copy)]
enum Connection {
    /// The arguments of `explain`.
    Outbound(&'static [&'static str]),
    /// A client connects to this port of the pod.
    Inbound(&'static str),
    /// A connection from `eth0` to another address: the pod forwards it.
    Forwarded(&'static str),
}

use Connection::{Forwarded, Inbound, Outbound};

struct Case {
    annotation: &'static str,
    value: &'static str,
    /// Another annotation that the pod has in both runs.
    besides: Option<(&'static str, &'static str)>,
    connection: Connection,
    without: &'static str,
    with: &'static str,
}

const fn case(
    annotation: &'static str,
    value: &'static str,
    connection: Connection,
    [without, with]: [&'static str; 2],
) -> Case {
    Case {
        annotation,
        value,
        besides: None,
        connection,
        without,
        with,
    }
}

const WEB: Connection = Outbound(&["--to", "10.2.0.9:80"]);
const WEB_V6: Connection = Outbound(&["--to", "[fd00:2::9]:80"]);
const INCLUDED: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
const CONFIG: &str = "proxy.istio.io/config";
const UNCAPTURED: &str = "not captured";

const CASES: [Case; 13] = [
    case(INCLUDED, "10.3.0.0/16", WEB, ["15001", "passed"]),
    case(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "10.2.0.0/16",
        WEB,
        ["15001", "passed"],
    ),
    case(
        "traffic.sidecar.istio.io/includeInboundPorts",
        "9090",
        Inbound("8080"),
        ["15006", "passed"],
    ),
    case(
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "8080",
        Inbound("8080"),
        ["15006", "passed"],
    ),
    Case {
        besides: Some((INCLUDED, "")),
        ..case(
            "traffic.sidecar.istio.io/includeOutboundPorts",
            "80",
            WEB,
            ["passed", "15001"],
        )
    },
    case(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "80",
        WEB,
        ["15001", "passed"],
    ),
    case(
        "traffic.sidecar.istio.io/excludeInterfaces",
        "eth0",
        WEB,
        ["15001", "passed"],
    ),
    case(
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        "eth0",
        Forwarded("10.2.0.9:80"),
        ["15006", "15001"],
    ),
    case(
        "istio.io/reroute-virtual-interfaces",
        "eth0",
        Forwarded("10.2.0.9:80"),
        ["15006", "15001"],
    ),
    case(
        "sidecar.istio.io/interceptionMode",
        "NONE",
        WEB,
        ["15001", UNCAPTURED],
    ),
    case(CONFIG, "interceptionMode: NONE", WEB, ["15001", UNCAPTURED]),
    case(
        CONFIG,
        r#"proxyMetadata: {ISTIO_DUAL_STACK: "true"}"#,
        WEB_V6,
        ["passed", "15001"],
    ),
    case(
        "sidecar.istio.io/inject",
        "false",
        WEB,
        ["15001", UNCAPTURED],
    ),
];

/// The port that a connection is captured to, `passed`, or [`UNCAPTURED`].
fn verdict(pod: &ObjectPod, connection: Connection) -> String {
    let netns = pod
        .pod
        .netns()
        .expect("a sandbox")
        .path()
        .display()
        .to_string();
    let mut arguments = vec!["explain", "--netns", &netns, "-o", "json"];
    let address;
    match connection {
        Outbound(query) => arguments.extend(query),
        Inbound(port) => {
            address = format!("{}:{port}", pod.ip().expect("an address"));
            arguments.extend(["--inbound", "--interface=eth0", "--to", &address]);
        }
        Forwarded(to) => arguments.extend(["--inbound", "--interface=eth0", "--to", to]),
    }
    let output = interceptor::try_run(&arguments).expect("explain");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("is not captured"), "{error}");
        return UNCAPTURED.to_owned();
    }
    let explained: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = &explained["outcome"];
    match outcome.as_str() {
        Some(outcome) => outcome.to_owned(),
        None => outcome["captured"]["port"].to_string(),
    }
}

/// A pod with these annotations, from the webhook to the attached sandbox.
fn attached(node: &Node, name: &str, annotations: &[(&str, &str)]) -> ObjectPod {
    let mut pod = plain(name, &[container("app", &["actor", "here", "app"])]);
    for (annotation, value) in annotations {
        pod["metadata"]["annotations"][*annotation] = json!(value);
    }
    let created = create(node, &pod);
    for (annotation, value) in annotations {
        let kept = &created["metadata"]["annotations"][*annotation];
        assert_eq!(*kept, json!(value), "{annotation}");
    }
    node.set_up(&created, Vec::new()).expect("a sandbox")
}

#[test]
fn every_capture_annotation_changes_a_verdict() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let _webhook = node.start_webhook(&[]).expect("a webhook");
    let unchanged = attached(&node, "web", &[]);
    for (number, case) in CASES.iter().enumerate() {
        let Case {
            annotation, value, ..
        } = case;
        let shown = format!("{annotation} {value:?}");
        let mut annotations: Vec<_> = case.besides.into_iter().collect();
        let without = if annotations.is_empty() {
            verdict(&unchanged, case.connection)
        } else {
            let pod = attached(&node, &format!("without-{number}"), &annotations);
            verdict(&pod, case.connection)
        };
        assert_eq!(without, case.without, "without {shown}: {}", agent.log());
        annotations.push((annotation, value));
        let pod = attached(&node, &format!("with-{number}"), &annotations);
        let with = verdict(&pod, case.connection);
        assert_eq!(with, case.with, "{shown}: {}", agent.log());
    }
}

#[test]
fn every_documented_capture_annotation_has_a_case() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let document = fs::read_to_string(document).expect("docs/settings.md");
    let (_, section) = document
        .split_once("## Pod annotations")
        .expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let rows = section.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        name.contains("istio.io/").then_some(name)
    });
    let mut count = 0;
    for name in rows {
        let has_case = CASES.iter().any(|case| case.annotation == name);
        assert!(has_case, "{name}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

/// TPROXY needs a capability, and captured DNS queries a DNS proxy.
#[test]
fn what_the_built_in_sidecar_cannot_capture_is_refused() {
    let node = new_node();
    let _webhook = node.start_webhook(&[]).expect("a webhook");
    let mode = "sidecar.istio.io/interceptionMode";
    for (annotation, value, part) in [
        (mode, "TPROXY", "CAP_NET_ADMIN"),
        (CONFIG, "interceptionMode: TPROXY", "CAP_NET_ADMIN"),
        (
            CONFIG,
            r#"proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}"#,
            "ISTIO_META_DNS_CAPTURE",
        ),
    ] {
        let mut pod = plain("web", &[container("app", &["actor", "here", "app"])]);
        pod["metadata"]["annotations"][annotation] = json!(value);
        let created = node.create(NAMESPACE, &pod).expect("a call");
        let refusal = created.expect_err(value);
        assert!(refusal.contains(part), "{value}: {refusal}");
    }
}
