//! Istio's resources of kind `ProxyConfig`: each change is used for the next pod, and a cluster need
//! not have them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Cluster, Replica, TIMEOUT, pod};

const API_VERSION: &str = "networking.istio.io/v1beta1";
const KIND: &str = "ProxyConfig";
const PLURAL: &str = "proxyconfigs";
const ROLE: &str = "interceptor-webhook-proxyconfigs";

/// Shows the proxy's image, variables and configuration, as Istio's template does.
const CONFIG: &str = "
templates:
  sidecar: |
    spec:
      initContainers:
      - name: istio-proxy
        image: {{ .ProxyImage }}
        env:
        {{- range $name, $value := .ProxyConfig.ProxyMetadata }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        - name: PROXY_CONFIG
          value: |
            {{ protoToJSON .ProxyConfig }}
";
const VALUES: &str = r#"{"global": {"hub": "h", "tag": "1", "proxy": {"image": "proxyv2"}}}"#;

impl Cluster {
    /// A cluster in which a pod shows the configuration of its proxy.
    fn with_proxy_configs() -> Self {
        let cluster = Self::with_istio();
        let injector = json!({"config": CONFIG, "values": VALUES});
        cluster.put_map("istio-sidecar-injector", &injector);
        let mesh = "defaultConfig: {proxyMetadata: {ALL: mesh, MESH: x}}";
        cluster.put_map("istio", &json!({"mesh": mesh}));
        cluster
    }

    fn put_proxy_config(&self, namespace: &str, name: &str, spec: &Value) {
        let metadata = json!({"namespace": namespace, "name": name});
        let object =
            json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec});
        self.api.put(object).unwrap();
    }

    async fn until_variable(&self, name: &str, expected: Option<&str>) {
        let start = Instant::now();
        loop {
            let proxy = Proxy::of(&self.create().await);
            if proxy.variable(name) == expected {
                return;
            }
            assert!(start.elapsed() < TIMEOUT, "{expected:?}: {:?}", proxy.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the webhook has been refused its ProxyConfigs three times, with this status.
    async fn until_retried(&self, status: u16) {
        let start = Instant::now();
        loop {
            let recorded = self.api.recorded().into_iter();
            let refused = recorded.filter(|request| request.path.ends_with(PLURAL));
            let refused = refused.filter(|request| request.status == status).count();
            if refused >= 3 {
                return;
            }
            assert!(start.elapsed() < TIMEOUT, "only {refused} requests");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The sidecar of a pod.
struct Proxy(Value);

impl Proxy {
    fn of(pod: &Value) -> Self {
        let proxy = pod["spec"]["initContainers"][0].clone();
        assert_eq!(proxy["name"], "istio-proxy", "{pod}");
        Self(proxy)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let mut variables = self.0["env"].as_array()?.iter();
        let found = variables.find(|variable| variable["name"] == name)?;
        found["value"].as_str()
    }

    fn config(&self) -> Value {
        serde_json::from_str(self.variable("PROXY_CONFIG").unwrap()).unwrap()
    }
}

/// The one line of the log about the resources.
fn logged(replica: &Replica, parts: &[&str]) {
    let lines = replica.logged("without ProxyConfigs");
    let [line] = &*lines else {
        panic!("not one line: {lines:?}");
    };
    for part in parts {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn their_fields_reach_the_pod_in_the_order_of_istio() {
    let cluster = Cluster::with_proxy_configs();
    let labels = json!({"istio-injection": "enabled"});
    let metadata = json!({"name": "shop", "labels": labels});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    cluster.api.put(namespace).unwrap();
    let variables = |level: &str| json!({"ALL": level, level: "x"});
    let of_root = json!({"concurrency": 2, "environmentVariables": variables("ROOT")});
    cluster.put_proxy_config("istio-system", "root", &of_root);
    let of_shop = json!({
        "concurrency": 3,
        "image": {"imageType": "debug"},
        "environmentVariables": variables("SHOP"),
    });
    cluster.put_proxy_config("shop", "all", &of_shop);
    let of_web = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "environmentVariables": variables("WEB"),
    });
    cluster.put_proxy_config("shop", "web", &of_web);
    let _replica = cluster.serve(&["--from-cluster"]).await;

    let annotation = "{concurrency: 4, proxyMetadata: {ALL: POD, POD: x}}";
    let annotations = json!({"proxy.istio.io/config": annotation});
    let web = json!({"name": "web", "labels": {"app": "web"}, "annotations": annotations});
    let other = json!({"name": "other", "labels": {"app": "other"}});
    for (namespace, metadata, image, concurrency, names, all) in [
        ("mesh", &web, "h/proxyv2:1", 4, "ALL MESH POD ROOT", "POD"),
        ("mesh", &other, "h/proxyv2:1", 2, "ALL MESH ROOT", "ROOT"),
        (
            "shop",
            &other,
            "h/proxyv2:1-debug",
            3,
            "ALL MESH ROOT SHOP",
            "SHOP",
        ),
        (
            "shop",
            &web,
            "h/proxyv2:1-debug",
            4,
            "ALL MESH POD ROOT SHOP WEB",
            "WEB",
        ),
    ] {
        let created = cluster.api.create_pod(namespace, &pod(metadata)).await;
        let proxy = Proxy::of(&created.unwrap());
        let config = proxy.config();
        assert_eq!(proxy.0["image"], image, "{namespace} {metadata}");
        assert_eq!(config["concurrency"], concurrency, "{config}");
        let metadata = config["proxyMetadata"].as_object().unwrap();
        let found: Vec<_> = metadata.keys().map(String::as_str).collect();
        assert_eq!(found.join(" "), names, "{config}");
        assert_eq!(proxy.variable("ALL"), Some(all), "{config}");
    }
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_change_is_used_for_the_next_pod_of_a_workload() {
    let cluster = Cluster::with_proxy_configs();
    let replica = cluster.serve(&["--from-cluster"]).await;
    let variable = |value: &str| json!({"environmentVariables": {"ALL": value}});
    // All pods are equal: the second one is rendered from the memo.
    cluster.until_variable("ALL", Some("mesh")).await;
    cluster.until_variable("ALL", Some("mesh")).await;
    let hit = "interceptor_injection_memo_lookups_total{result=\"hit\"} 1";
    assert!(replica.get("/metrics").await.contains(hit));
    cluster.put_proxy_config("mesh", "all", &variable("one"));
    cluster.until_variable("ALL", Some("one")).await;
    assert_eq!(cluster.generation(), Some(2));
    cluster.put_proxy_config("mesh", "all", &variable("two"));
    cluster.until_variable("ALL", Some("two")).await;
    // A resource that cannot be used takes nothing from the others.
    cluster.put_proxy_config("mesh", "lines", &variable("a\nb"));
    let start = Instant::now();
    let ignored = || replica.logged("ProxyConfig mesh/lines is ignored: environmentVariables");
    while ignored().is_empty() {
        assert!(start.elapsed() < TIMEOUT, "no warning");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.until_variable("ALL", Some("two")).await;
    let removed = cluster.api.remove(API_VERSION, KIND, "mesh", "all");
    assert!(removed.unwrap());
    cluster.until_variable("ALL", Some("mesh")).await;
}

#[tokio::test]
async fn a_cluster_without_the_kind_may_get_it_later() {
    let cluster = Cluster::with_proxy_configs();
    cluster.api.set_installed(PLURAL, false);
    let replica = cluster.serve(&["--from-cluster"]).await;
    cluster.until_variable("ALL", Some("mesh")).await;
    cluster.until_retried(404).await;
    logged(
        &replica,
        &["proxyconfigs.networking.istio.io", "install Istio's CRDs"],
    );
    assert_eq!(cluster.generation(), Some(1));
    cluster.api.set_installed(PLURAL, true);
    let spec = json!({"environmentVariables": {"ALL": "late"}});
    cluster.put_proxy_config("mesh", "late", &spec);
    cluster.until_variable("ALL", Some("late")).await;
    assert_eq!(
        replica.logged("the ProxyConfigs can be watched now").len(),
        1
    );
}

#[tokio::test]
async fn a_webhook_without_the_right_works_without_them() {
    let cluster = Cluster::with_proxy_configs();
    let group = "rbac.authorization.k8s.io/v1";
    let binding = cluster.api.get(group, "ClusterRoleBinding", "", ROLE);
    let removed = cluster.api.remove(group, "ClusterRoleBinding", "", ROLE);
    assert!(removed.unwrap());
    let spec = json!({"environmentVariables": {"ALL": "secret"}});
    cluster.put_proxy_config("mesh", "all", &spec);
    let replica = cluster.serve(&["--from-cluster"]).await;
    cluster.until_variable("ALL", Some("mesh")).await;
    cluster.until_retried(403).await;
    logged(
        &replica,
        &["no right to list and watch proxyconfigs", "rbac.yaml"],
    );
    cluster.api.put(binding.unwrap()).unwrap();
    cluster.until_variable("ALL", Some("secret")).await;
    // What has been read stays in use.
    cluster
        .api
        .remove(group, "ClusterRoleBinding", "", ROLE)
        .unwrap();
    cluster.api.disconnect();
    let start = Instant::now();
    while replica.logged("stay in use").is_empty() {
        assert!(start.elapsed() < TIMEOUT, "no warning");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.until_variable("ALL", Some("secret")).await;
}
