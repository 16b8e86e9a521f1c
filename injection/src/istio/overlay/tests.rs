//! Results from the memo are those of rendering.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Owner, Subject,
    istio::{Config, MemoCounts, Options, ProxyConfigs, Sources, inject},
    refusal::Refusal,
};

/// One template with a value of everything that differs between pods, and one with the names of
/// volumes.
const CONFIG: &str = r#"
templates:
  sidecar: |
    metadata:
      annotations:
        meta: {{ print .TypeMeta.Kind .DeploymentMeta.Name .ObjectMeta.Namespace .ProxyUID | quote }}
        labels: {{ toJson .ObjectMeta.Labels | quote }}
    spec:
      containers:
      - name: istio-proxy
        image: {{ .ProxyImage }}
        cpu: 0.1
        env:
        {{- range .Spec.Containers }}
        - name: IMAGE_{{ .Name }}
          value: {{ .Image | quote }}
        {{- end }}
        - name: CONCURRENCY
          value: "{{ .ProxyConfig.Concurrency }}"
  volumes: |
    metadata:
      annotations:
        volumes: '{{ range .Spec.Volumes }}{{ .Name }} {{ end }}'
"#;

fn config() -> Config {
    let sources = Sources {
        inject: CONFIG,
        values: r#"{"global": {"hub": "h", "tag": "t", "proxy": {"image": "proxyv2"}}}"#,
        mesh: "",
    };
    let resource = |namespace: &str, spec: Value| {
        let metadata = json!({"name": "x", "namespace": namespace});
        json!({"metadata": metadata, "spec": spec})
    };
    let selector = json!({"matchLabels": {"app": "a"}});
    let resources = [
        resource("ns0", json!({"concurrency": 7})),
        resource("ns1", json!({"concurrency": 8, "selector": selector})),
    ];
    let options = Options {
        proxy_configs: ProxyConfigs::parse(&resources, "").0,
        ..Options::default()
    };
    Config::load(&sources, options).unwrap()
}

/// A pod without the name of its volume, and its subject.
fn workload() -> impl Strategy<Value = (Value, Subject)> {
    let annotations = prop::sample::subsequence(
        vec![
            ("inject.istio.io/templates", "sidecar,volumes"),
            ("proxy.istio.io/config", "concurrency: 3"),
            ("sidecar.istio.io/proxyImageType", "debug"),
            ("note", "kube-api-access-00000"),
            ("note", "kube-api-access-bcdfg"),
            ("inject.istio.io/templates", "missing"),
        ],
        0..4,
    );
    let subject = (0..2, 0..2, prop::option::of(0..2)).prop_map(|(namespace, user, owner)| {
        let range = ("openshift.io/sa.scc.uid-range", format!("100{user}/10"));
        Subject {
            namespace: format!("ns{namespace}"),
            namespace_annotations: [(range.0.to_owned(), range.1)].into(),
            owner: owner.map(|owner| Owner {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: format!("d{owner}"),
                namespace: format!("ns{namespace}"),
            }),
            ..Subject::default()
        }
    });
    (annotations, "[ab]", "[ab]", subject).prop_map(|(annotations, label, image, subject)| {
        let annotations = annotations
            .into_iter()
            .map(|(key, value)| (key.to_owned(), json!(value)));
        let pod = json!({
            "metadata": {
                "labels": {"app": label},
                "annotations": Value::Object(annotations.collect()),
            },
            "spec": {"containers": [{"name": "app", "image": image}]},
        });
        (pod, subject)
    })
}

fn with_volume(mut pod: Value, suffix: &str) -> Value {
    let name = format!("kube-api-access-{suffix}");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": name, "mountPath": "/token"}]);
    pod["spec"]["volumes"] = json!([{"name": name, "projected": {"sources": []}}]);
    pod
}

fn injected(pod: &Value, subject: &Subject, config: &Config) -> Result<String, Refusal> {
    inject(pod, subject, config).map(|(pod, warnings)| format!("{pod} {warnings:?}"))
}

proptest! {
    #[test]
    fn the_memo_changes_no_result(
        workloads in prop::collection::vec(workload(), 1..5),
        pods in prop::collection::vec((any::<prop::sample::Index>(), "(x7kqz|2b4cd|00000|other)"), 1..12),
    ) {
        let used = config();
        for (workload, suffix) in pods {
            let (pod, subject) = workload.get(&workloads);
            let pod = with_volume(pod.clone(), &suffix);
            prop_assert_eq!(injected(&pod, subject, &used), injected(&pod, subject, &config()));
        }
    }
}

#[test]
fn pods_of_one_workload_are_rendered_once() {
    let config = config();
    let pod = json!({"spec": {"containers": [{"name": "app", "image": "a"}]}});
    for suffix in ["x7kqz", "2b4cd", "qqqqq"] {
        let pod = with_volume(pod.clone(), suffix);
        injected(&pod, &Subject::default(), &config).unwrap();
    }
    assert_eq!(config.memo_counts(), MemoCounts { hits: 2, misses: 1 });
    assert_eq!(self::config().memo_counts(), MemoCounts::default());
}

#[test]
fn a_result_with_a_random_name_belongs_to_one_pod() {
    let config = config();
    let pod = json!({
        "metadata": {"annotations": {"inject.istio.io/templates": "volumes"}},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    });
    for suffix in ["x7kqz", "2b4cd"] {
        let pod = with_volume(pod.clone(), suffix);
        let text = injected(&pod, &Subject::default(), &config).unwrap();
        assert!(
            text.contains(&format!(r#""volumes":"kube-api-access-{suffix} ""#)),
            "{text}"
        );
    }
}
