//! The memo of rendered templates, as its metric shows it.

use std::fs;

use serde_json::json;

use super::{Cluster, has_sidecar, pod};

const TEMPLATE: &str = "spec: {initContainers: [{name: istio-proxy, image: {{ .ProxyImage }}}]}";

#[tokio::test]
async fn pods_of_a_workload_are_rendered_once() {
    let cluster = Cluster::new();
    let write = |name: &str, text: &str| {
        let path = cluster.directory.path().join(name);
        fs::write(&path, text).unwrap();
        format!("{}", path.display())
    };
    let values = r#"{"global": {"hub": "h", "tag": "1", "proxy": {"image": "proxyv2"}}}"#;
    let template = format!("--injectConfigFile={}", write("template", TEMPLATE));
    let values = format!("--valuesFile={}", write("values", values));
    let replica = cluster.serve(&[&template, &values]).await;
    for suffix in ["x7kqz", "2b4cd", "qqqqq"] {
        let mut pod = pod(&json!({}));
        let name = format!("kube-api-access-{suffix}");
        pod["spec"]["volumes"] = json!([{"name": name, "projected": {"sources": []}}]);
        let created = cluster.api.create_pod("mesh", &pod).await.unwrap();
        assert!(has_sidecar(&created));
        assert_eq!(created["spec"]["volumes"], pod["spec"]["volumes"]);
    }
    let metrics = replica.get("/metrics").await;
    for line in [
        "interceptor_injection_memo_lookups_total{result=\"hit\"} 2",
        // One is of the pod by which the configuration was tried before its use.
        "interceptor_injection_memo_lookups_total{result=\"miss\"} 2",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
