//! An istiod of a revision: its webhooks, its `ConfigMap` and a process that injects by them.

use std::fs;

use serde_json::{Value, json};

use super::{Cluster, Replica, command};

/// Its namespace.
pub(super) const ISTIO: &str = "istio-system";

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": operator, "values": values})
}

/// An istiod's webhooks: two for its revision, and two more of the default one.
pub(super) fn istio_webhooks(revision: &str) -> Value {
    let absent = |key| expression(key, "DoesNotExist", &[]);
    let of_revision = expression("istio.io/rev", "In", &[revision]);
    let not_false = expression("sidecar.istio.io/inject", "NotIn", &["false"]);
    let neither = json!([absent("istio-injection"), absent("istio.io/rev")]);
    let mut selectors = vec![
        (
            "rev.namespace",
            json!([of_revision, absent("istio-injection")]),
            json!([not_false]),
        ),
        (
            "rev.object",
            neither.clone(),
            json!([not_false, of_revision]),
        ),
    ];
    if revision == "default" {
        let enabled = expression("istio-injection", "In", &["enabled"]);
        let wanted = expression("sidecar.istio.io/inject", "In", &["true"]);
        selectors.push(("namespace", json!([enabled]), json!([not_false])));
        selectors.push(("object", neither, json!([wanted, absent("istio.io/rev")])));
    }
    let webhooks = selectors.into_iter().map(|(name, namespace, object)| {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"),
            "clientConfig": {"service": {
                "namespace": ISTIO, "name": format!("istiod-{revision}"), "path": "/inject",
            }},
            "rules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"],
            }],
            "namespaceSelector": {"matchExpressions": namespace},
            "objectSelector": {"matchExpressions": object},
            "failurePolicy": "Fail", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        })
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": format!("istio-sidecar-injector-{revision}"),
            "labels": {"istio.io/rev": revision},
        },
        "webhooks": webhooks.collect::<Vec<_>>(),
    })
}

/// A configuration in which the policy, both selectors and the pod decide.
pub(super) const INJECT_CONFIG: &str = "\
policy: disabled
alwaysInjectSelector: [{matchLabels: {app: web}}]
neverInjectSelector: [{matchExpressions: [{key: job, operator: Exists}]}]
templates:
  sidecar: |
    spec:
      containers:
      - name: istio-proxy
        image: proxy:1
";

/// A process that does what an istiod of this revision would do, with the rights of `kubeconfig`.
pub(super) async fn istiod(cluster: &Cluster, revision: &str, kubeconfig: &str) -> Replica {
    cluster.api.put(istio_webhooks(revision)).unwrap();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": ISTIO, "name": format!("istio-sidecar-injector-{revision}")},
        "data": {"config": INJECT_CONFIG, "values": "{\"global\": {}}"},
    });
    cluster.api.put(map).unwrap();
    let file = |name: &str, text: &str| {
        let path = cluster.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let service = format!("istiod-{revision}");
    let mut command = command(kubeconfig.as_ref());
    command
        .args(["--namespace", ISTIO])
        .args(["--service", &service, "--revision", revision])
        .arg(format!(
            "--webhook-config=istio-sidecar-injector-{revision}"
        ))
        .args(["--injectConfigFile", &file("config", INJECT_CONFIG)])
        .args(["--valuesFile", &file("values", "{\"global\": {}}")]);
    let replica = cluster.run(command);
    replica.until_ready().await;
    cluster
        .api
        .set_endpoints(ISTIO, &service, &[replica.0.https]);
    replica
}
