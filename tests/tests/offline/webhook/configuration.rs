//! The configuration of the sidecar: it is replaced while the webhook runs, and one with an error is
//! kept out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Cluster, Replica, TIMEOUT, pod};

const INJECTOR: &str = "istio-sidecar-injector";
const VERSION: &str = "test/version";

/// The key `config`, with a template that labels pods with `version`.
fn config(version: &str) -> String {
    format!(
        "policy: enabled\n\
         templates:\n\
         \x20 sidecar: |\n\
         \x20   metadata:\n\
         \x20     labels: {{\"{VERSION}\": {version}}}\n\
         \x20   spec:\n\
         \x20     {{{{ if .NativeSidecars }}}}initContainers{{{{ else }}}}containers{{{{ end }}}}:\n\
         \x20     - {{name: istio-proxy, image: proxy}}\n"
    )
}

/// Line 3 of its template has an error.
pub(super) fn faulty_config() -> String {
    config("two").replace("    spec:\n", "    spec: {{ nothing }}\n")
}

impl Cluster {
    /// A cluster with Istio's ConfigMaps.
    pub(super) fn with_istio() -> Self {
        let cluster = Self::with("examples/injection-istio");
        cluster.put_map("istio", &json!({"mesh": "trustDomain: cluster.local"}));
        cluster.put_config(&config("one"));
        cluster
    }

    pub(super) fn put_config(&self, config: &str) {
        self.put_map(INJECTOR, &json!({"config": config, "values": "{}"}));
    }

    pub(super) fn put_map(&self, name: &str, data: &Value) {
        let metadata = json!({"namespace": "istio-system", "name": name, "uid": name});
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        self.api.put(map).unwrap();
    }

    fn put_node(&self, name: &str, version: &str) {
        let status = json!({"nodeInfo": {"kubeletVersion": version}});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
        self.api.put(node).unwrap();
    }

    pub(super) async fn create(&self) -> Value {
        self.api.create_pod("mesh", &pod(&json!({}))).await.unwrap()
    }

    /// The label that the template sets in the next pod.
    async fn version(&self) -> String {
        let pod = self.create().await;
        let label = &pod["metadata"]["labels"][VERSION];
        label.as_str().unwrap_or_default().to_owned()
    }

    async fn until_version(&self, expected: &str) {
        let start = Instant::now();
        while self.version().await != expected {
            assert!(start.elapsed() < TIMEOUT, "no pod of version {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The Events about the injector's `ConfigMap`, when there are this many.
    async fn until_events(&self, count: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let events = self.api.events_about(INJECTOR);
            if events.len() >= count {
                assert_eq!(events.len(), count, "{events:?}");
                return events;
            }
            assert!(start.elapsed() < TIMEOUT, "{events:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The number of the configuration that decided about the last pod.
    pub(super) fn generation(&self) -> Option<u64> {
        let admissions = self.api.admissions();
        let annotations = admissions.last()?["annotations"].as_object()?;
        let (_, number) = annotations
            .iter()
            .find(|(key, _)| key.ends_with("/config"))?;
        number.as_str()?.parse().ok()
    }
}

impl Replica {
    async fn until_rejected(&self) {
        let metric = "interceptor_injection_config_last_reload_success 0";
        self.until("/metrics", metric).await;
    }
}

#[tokio::test]
async fn a_changed_template_changes_the_next_pod() {
    let cluster = Cluster::with_istio();
    let replica = cluster.serve(&["--from-cluster"]).await;
    assert_eq!(cluster.version().await, "one");
    assert_eq!(cluster.generation(), Some(1));
    cluster.put_config(&config("two"));
    cluster.until_version("two").await;
    assert_eq!(cluster.generation(), Some(2));
    let metrics = replica.get("/metrics").await;
    for metric in [
        "interceptor_injection_config_generation 2",
        "interceptor_injection_config_last_reload_success 1",
    ] {
        assert!(metrics.contains(metric), "{metrics}");
    }
    // Only what the roles allow was requested.
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_configuration_with_an_error_is_kept_out() {
    let cluster = Cluster::with_istio();
    let replica = cluster.serve(&["--from-cluster"]).await;
    cluster.put_config(&faulty_config());
    replica.until_rejected().await;
    assert_eq!(cluster.version().await, "one");
    replica.until_ready().await;
    let events = cluster.until_events(1).await;
    assert_eq!(events[0]["type"], "Warning");
    let note = events[0]["note"].as_str().unwrap();
    for part in [
        "key config",
        "template sidecar, line 3",
        "nothing",
        "configuration 1 stays",
    ] {
        assert!(note.contains(part), "{note}");
    }
    // A template that can be parsed, but whose result is no pod.
    cluster.put_config(&config("[two"));
    let events = cluster.until_events(2).await;
    let note = events[1]["note"].as_str().unwrap();
    assert!(note.contains("no pod can be injected"), "{note}");
    assert_eq!(cluster.version().await, "one");
    // An error in the other map.
    cluster.put_map("istio", &json!({"mesh": "defaultConfig: {statusPort: x}"}));
    let start = Instant::now();
    while cluster.api.events_about("istio").is_empty() {
        assert!(start.elapsed() < TIMEOUT, "no Event");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.put_config(&config("two"));
    assert_eq!(cluster.version().await, "one");

    cluster.put_map("istio", &json!({"mesh": ""}));
    cluster.until_version("two").await;
    assert_eq!(cluster.generation(), Some(2));
}

#[tokio::test]
async fn without_a_valid_configuration_it_is_not_ready() {
    let cluster = Cluster::with_istio();
    cluster.put_config(&faulty_config());
    let replica = cluster.start(&["--from-cluster"]);
    let problem =
        "ConfigMap istio-system/istio-sidecar-injector, key config: template sidecar, line 3: ";
    replica.until("/readyz", problem).await;
    cluster.route(&[&replica]);
    let metadata = json!({"name": "too-early"});
    let refusal = cluster.api.create_pod("mesh", &pod(&metadata)).await;
    let refusal = refusal.unwrap_err();
    assert!(refusal.contains("failed calling webhook"), "{refusal}");
    let group = cluster
        .api
        .remove("v1", "ConfigMap", "istio-system", INJECTOR);
    assert!(group.unwrap());
    replica.until("/readyz", "does not exist").await;
    cluster.put_config(&config("one"));
    replica.until_ready().await;
    assert_eq!(cluster.version().await, "one");
}

#[tokio::test]
async fn a_change_fails_no_review() {
    let cluster = Cluster::with_istio();
    let replica = cluster.serve(&["--from-cluster"]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "1", "namespace": "mesh", "kind": {"kind": "Pod"}, "object": pod(&json!({}))},
    })
    .to_string();
    for number in 0..40 {
        let is_faulty = number % 5 == 4;
        let text = if is_faulty {
            faulty_config()
        } else {
            config(&format!("v{number}"))
        };
        cluster.put_config(&text);
        let post = || server.post("/inject", "application/json", review.clone());
        for posted in join_all((0..3).map(|_| post())).await {
            let (status, response) = posted.unwrap();
            let response: Value = serde_json::from_slice(&response).unwrap();
            assert_eq!(status, 200, "{response}");
            assert!(response["response"]["patch"].is_string(), "{response}");
        }
    }
    cluster.until_version("v38").await;
    assert_eq!(cluster.generation(), Some(33));
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing() {
    let cluster = Cluster::with_istio();
    let replica = cluster.serve(&["--from-cluster"]).await;
    cluster.api.disconnect();
    cluster.api.expire();
    cluster.put_config(&config("two"));
    cluster.until_version("two").await;
    replica.until_ready().await;
}

/// As the kubelet does it: all files are links through one link, which is replaced.
fn publish(directory: &Path, version: &str, config: &str) {
    let at = |name: &str| directory.join(name);
    fs::create_dir(at(version)).unwrap();
    fs::write(at(version).join("config"), config).unwrap();
    fs::write(at(version).join("values"), "{}").unwrap();
    symlink(version, at("new")).unwrap();
    fs::rename(at("new"), at("..data")).unwrap();
}

#[tokio::test]
async fn mounted_files_are_read_again() {
    let cluster = Cluster::new();
    let mount = tempfile::tempdir().unwrap();
    publish(mount.path(), "1", &config("one"));
    for name in ["config", "values"] {
        symlink(format!("..data/{name}"), mount.path().join(name)).unwrap();
    }
    let file = |name: &str| mount.path().join(name).display().to_string();
    let inject = format!("--injectConfigFile={}", file("config"));
    let values = format!("--valuesFile={}", file("values"));
    let replica = cluster.serve(&[&inject, &values]).await;
    assert_eq!(cluster.version().await, "one");
    publish(mount.path(), "2", &faulty_config());
    replica.until_rejected().await;
    assert_eq!(cluster.version().await, "one");
    publish(mount.path(), "3", &config("two"));
    cluster.until_version("two").await;
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

async fn until_native(cluster: &Cluster, expected: bool) {
    let start = Instant::now();
    while cluster.create().await["spec"]["initContainers"].is_array() != expected {
        assert!(start.elapsed() < TIMEOUT, "native is not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_oldest_kubelet_decides_about_native_sidecars() {
    let cluster = Cluster::with_istio();
    cluster.put_node("new", "v1.34.0");
    cluster.put_node("old", "v1.32.1-gke.7");
    let _replica = cluster.serve(&["--from-cluster"]).await;
    until_native(&cluster, false).await;
    // A pod that names its node counts this one only.
    for (node, is_native) in [("new", true), ("old", false), ("unknown", false)] {
        let mut pod = pod(&json!({}));
        pod["spec"]["nodeName"] = json!(node);
        let created = cluster.api.create_pod("mesh", &pod).await.unwrap();
        assert_eq!(
            created["spec"]["initContainers"].is_array(),
            is_native,
            "{node}"
        );
    }
    cluster.api.remove("v1", "Node", "", "old").unwrap();
    until_native(&cluster, true).await;
    cluster.put_node("older", "v1.28.0");
    until_native(&cluster, false).await;
    cluster.put_node("older", "v1.33.0");
    until_native(&cluster, true).await;
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn the_built_in_sidecar_needs_kubernetes_1_29() {
    let cluster = Cluster::new();
    cluster.put_node("old", "v1.28.9");
    let _replica = cluster.serve(&[]).await;
    until_native(&cluster, false).await;
    cluster.put_node("old", "v1.29.0");
    until_native(&cluster, true).await;
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn the_option_decides_without_reading_nodes() {
    let cluster = Cluster::new();
    cluster.put_node("old", "v1.28.9");
    let _replica = cluster.serve(&["--native-sidecar=true"]).await;
    until_native(&cluster, true).await;
    let recorded = cluster.api.recorded();
    let nodes = recorded
        .iter()
        .find(|request| request.path.ends_with("/nodes"));
    assert!(nodes.is_none(), "{nodes:?}");
}
