use serde_json::{Value, json};

use super::{CONTAINER, Config, Resources, STATUS, inject};
use crate::refusal::Refusal;

fn pod() -> Value {
    json!({
        "metadata": {"name": "app", "labels": {"app": "a"}},
        "spec": {
            "containers": [{"name": "app", "image": "app:1", "newField": {"x": 1}}],
            "initContainers": [{"name": "prepare", "image": "app:1"}],
        },
    })
}

fn annotated(annotations: &Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"] = annotations.clone();
    pod
}

fn injected(annotations: &Value) -> Value {
    inject(&annotated(annotations), &Config::default())
        .unwrap()
        .0
}

fn refusal(annotations: &Value, config: &Config) -> String {
    let error: Refusal = inject(&annotated(annotations), config).unwrap_err();
    error.to_string()
}

fn proxy(pod: &Value) -> &Value {
    let lists = ["initContainers", "containers"];
    let mut containers = lists
        .iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten();
    let found = containers.find(|container| container["name"] == CONTAINER);
    found.expect("a proxy")
}

fn argument<'a>(proxy: &'a Value, flag: &str) -> Option<&'a str> {
    let arguments = proxy["args"].as_array().unwrap();
    let index = arguments.iter().position(|argument| argument == flag)?;
    arguments[index + 1].as_str()
}

#[test]
fn a_native_sidecar_precedes_the_init_containers() {
    let injected = injected(&json!({}));
    let names = |list: &str| -> Vec<_> {
        let containers = injected["spec"][list].as_array().unwrap();
        containers
            .iter()
            .map(|container| container["name"].clone())
            .collect()
    };
    assert_eq!(names("initContainers"), [CONTAINER, "prepare"]);
    assert_eq!(names("containers"), ["app"]);
    assert_eq!(proxy(&injected)["restartPolicy"], "Always");
    let status = injected["metadata"]["annotations"][STATUS]
        .as_str()
        .unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(status["initContainers"], json!([CONTAINER]));
    assert_eq!(status["containers"], Value::Null);
}

#[test]
fn a_classic_sidecar_follows_the_containers() {
    let injected = injected(&json!({"sidecar.istio.io/nativeSidecar": "false"}));
    let containers = injected["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers[1]["name"], CONTAINER);
    assert!(containers[1].get("restartPolicy").is_none());
    assert_eq!(
        injected["spec"]["initContainers"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn the_rest_of_the_pod_is_unchanged() {
    let mut injected = injected(&json!({"a": "b"}));
    injected["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    injected["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove(STATUS);
    assert_eq!(injected, annotated(&json!({"a": "b"})));
}

/// The rules of `restricted` for a container
/// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).
#[test]
fn the_proxy_passes_pod_security_restricted() {
    let injected = injected(&json!({}));
    let proxy = proxy(&injected);
    let context = &proxy["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["runAsNonRoot"], true);
    assert_ne!(context["runAsUser"], 0);
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    assert!(proxy.get("volumeMounts").is_none());
    let ports = proxy["ports"].as_array().unwrap();
    assert!(ports.iter().all(|port| port.get("hostPort").is_none()));
}

#[test]
fn annotations_choose_image_log_level_and_concurrency() {
    let injected = injected(&json!({
        "sidecar.istio.io/proxyImage": "example.com/envoy:2",
        "sidecar.istio.io/logLevel": "debug",
        "sidecar.istio.io/componentLogLevel": "http:trace",
        "proxy.istio.io/config": "concurrency: 4\n",
    }));
    let proxy = proxy(&injected);
    assert_eq!(proxy["image"], "example.com/envoy:2");
    assert_eq!(argument(proxy, "--log-level"), Some("debug"));
    assert_eq!(argument(proxy, "--component-log-level"), Some("http:trace"));
    assert_eq!(argument(proxy, "--concurrency"), Some("4"));
}

#[test]
fn a_concurrency_of_0_is_one_worker_per_cpu() {
    let injected = injected(&json!({"proxy.istio.io/config": "concurrency: 0"}));
    assert_eq!(argument(proxy(&injected), "--concurrency"), None);
}

#[test]
fn a_resource_annotation_replaces_all_default_resources() {
    let default = injected(&json!({}));
    let expected = json!({
        "limits": {"cpu": "2000m", "memory": "1024Mi"},
        "requests": {"cpu": "100m", "memory": "128Mi"},
    });
    assert_eq!(proxy(&default)["resources"], expected);
    let chosen = injected(&json!({"sidecar.istio.io/proxyCPU": "50m"}));
    assert_eq!(
        proxy(&chosen)["resources"],
        json!({"requests": {"cpu": "50m"}})
    );
}

#[test]
fn no_resources_is_an_empty_object() {
    let config = Config {
        resources: Resources::default(),
        ..Config::default()
    };
    let (injected, _) = inject(&pod(), &config).unwrap();
    assert_eq!(proxy(&injected)["resources"], json!({}));
}

#[test]
fn kubelet_does_not_expand_the_configuration() {
    let config = Config {
        bootstrap: Some(json!({"a": "$(NAME) $x"})),
        ..Config::default()
    };
    let (injected, _) = inject(&pod(), &config).unwrap();
    let argument = argument(proxy(&injected), "--config-yaml");
    assert_eq!(argument, Some(r#"{"a":"$$(NAME) $$x"}"#));
}

#[test]
fn tproxy_is_refused() {
    let problem = refusal(
        &json!({"sidecar.istio.io/interceptionMode": "TPROXY"}),
        &Config::default(),
    );
    assert!(problem.contains("CAP_NET_ADMIN"), "{problem}");
}

#[test]
fn hold_requires_a_native_sidecar() {
    let hold = "holdApplicationUntilProxyStarts: true";
    let native = json!({"proxy.istio.io/config": hold});
    inject(&annotated(&native), &Config::default()).unwrap();
    let classic = Config {
        is_native: false,
        ..Config::default()
    };
    let problem = refusal(&native, &classic);
    assert!(problem.contains("native sidecar"), "{problem}");
    let by_config = Config {
        hold: true,
        ..classic
    };
    let problem = refusal(&json!({}), &by_config);
    assert!(problem.contains("native sidecar"), "{problem}");
}

#[test]
fn all_problems_are_reported_at_once() {
    let problem = refusal(
        &json!({
            "sidecar.istio.io/interceptionMode": "TPROXY",
            "sidecar.istio.io/nativeSidecar": "maybe",
            "proxy.istio.io/config": "[",
        }),
        &Config::default(),
    );
    for name in ["interceptionMode", "nativeSidecar", "proxy.istio.io/config"] {
        assert!(problem.contains(name), "{problem}");
    }
}

#[test]
fn a_pod_that_ends_gets_a_warning_without_a_native_sidecar() {
    let mut job = annotated(&json!({"sidecar.istio.io/nativeSidecar": "false"}));
    job["spec"]["restartPolicy"] = json!("Never");
    let (_, warnings) = inject(&job, &Config::default()).unwrap();
    assert!(warnings[0].contains("restartPolicy"), "{warnings:?}");
    job["metadata"]["annotations"] = json!({});
    let (_, warnings) = inject(&job, &Config::default()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
}
