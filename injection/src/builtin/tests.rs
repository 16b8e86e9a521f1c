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

/// A pod with its own container of the proxy.
fn with_own(list: &str, own: &Value) -> Value {
    let mut pod = pod();
    let containers = pod["spec"][list].as_array_mut().unwrap();
    containers.insert(0, own.clone());
    pod
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = pod["spec"][list].as_array().unwrap();
    let names = containers
        .iter()
        .map(|container| container["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn the_pods_own_proxy_wins_where_it_says_something() {
    let own = json!({
        "name": CONTAINER,
        "image": "auto",
        "env": [{"name": "TZ", "value": "UTC"}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "resources": {"limits": {"cpu": "50m"}},
        "securityContext": {"runAsUser": 4000},
        "readinessProbe": {"periodSeconds": 2},
        "volumeMounts": [{"name": "certs", "mountPath": "/certs"}],
    });
    for is_native in [true, false] {
        let config = Config {
            is_native,
            ..Config::default()
        };
        let (injected, _) = inject(&with_own("containers", &own), &config).unwrap();
        let expected: [&[&str]; 2] = if is_native {
            [&[CONTAINER, "prepare"], &["app"]]
        } else {
            [&["prepare"], &["app", CONTAINER]]
        };
        let lists = ["initContainers", "containers"].map(|list| names(&injected, list));
        assert_eq!(lists, expected.map(<[_]>::to_vec));
        let proxy = proxy(&injected);
        assert_eq!(proxy["image"], Config::default().image);
        assert_eq!(proxy["env"], own["env"]);
        assert_eq!(proxy["lifecycle"], own["lifecycle"]);
        assert_eq!(proxy["volumeMounts"], own["volumeMounts"]);
        assert_eq!(proxy["securityContext"]["runAsUser"], 4000);
        assert_eq!(proxy["securityContext"]["runAsNonRoot"], true);
        assert_eq!(proxy["readinessProbe"]["periodSeconds"], 2);
        assert_eq!(proxy["readinessProbe"]["httpGet"]["port"], 15021);
        // Our request of 100m would be above the limit of 50m.
        let resources = json!({
            "limits": {"memory": "1024Mi", "cpu": "50m"}, "requests": {"memory": "128Mi"},
        });
        assert_eq!(proxy["resources"], resources);
    }
}

#[test]
fn a_probe_of_the_pods_own_proxy_has_one_action() {
    let own = json!({"name": CONTAINER, "startupProbe": {"tcpSocket": {"port": 15021}}});
    let (injected, _) = inject(&with_own("initContainers", &own), &Config::default()).unwrap();
    let probe = &proxy(&injected)["startupProbe"];
    assert_eq!(probe["tcpSocket"]["port"], 15021);
    assert!(probe.get("httpGet").is_none(), "{probe}");
    assert_eq!(probe["failureThreshold"], 600);
}

#[test]
fn a_proxy_of_the_pod_that_cannot_be_merged_is_refused() {
    let own = json!({"name": CONTAINER});
    let init = with_own("initContainers", &own);
    let mut both = init.clone();
    both["spec"]["containers"].as_array_mut().unwrap().push(own);
    let classic = Config {
        is_native: false,
        ..Config::default()
    };
    for (pod, config, part) in [
        (init, &classic, "move it to containers"),
        (both, &Config::default(), "remove one"),
    ] {
        let problem = inject(&pod, config).unwrap_err().to_string();
        assert!(problem.contains(part), "{problem}");
    }
}

/// A pod whose container has these fields.
fn with_fields(fields: &Value) -> Value {
    let mut pod = pod();
    for (field, value) in fields.as_object().unwrap() {
        pod["spec"]["containers"][0][field] = value.clone();
    }
    pod
}

fn configuration(injected: &Value) -> Value {
    let text = argument(proxy(injected), "--config-yaml").unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn tcp_probes_are_done_by_the_proxy() {
    let pod = with_fields(&json!({
        "ports": [{"name": "web", "containerPort": 8080}],
        "livenessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 3, "timeoutSeconds": 2},
        "readinessProbe": {"tcpSocket": {"port": 9090}},
        "startupProbe": {"tcpSocket": {"port": 1, "host": "example.com"}},
    }));
    let (injected, warnings) = inject(&pod, &Config::default()).unwrap();
    assert_eq!(warnings, [""; 0]);
    let app = &injected["spec"]["containers"][0];
    let request = |path| json!({"path": path, "port": 15020});
    assert_eq!(
        app["livenessProbe"],
        json!({"periodSeconds": 3, "timeoutSeconds": 2, "httpGet": request("/app-health/app/livez")})
    );
    let readiness = json!({"httpGet": request("/app-health/app/readyz")});
    assert_eq!(app["readinessProbe"], readiness);
    assert_eq!(
        app["startupProbe"],
        pod["spec"]["containers"][0]["startupProbe"]
    );
    let configuration = configuration(&injected);
    let clusters = configuration["static_resources"]["clusters"]
        .as_array()
        .unwrap();
    let probes = clusters
        .iter()
        .filter_map(|cluster| cluster["health_checks"].as_array().map(|_| cluster));
    let probes: Vec<_> = probes
        .map(|cluster| {
            let check = &cluster["health_checks"][0];
            let address = cluster.pointer(
                "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address",
            );
            (
                cluster["name"].as_str().unwrap(),
                check["interval"].as_str().unwrap(),
                check["timeout"].as_str().unwrap(),
                address.unwrap().clone(),
            )
        })
        .collect();
    // kubelet expands the variable.
    let address = |port: u16| json!({"address": "$(INSTANCE_IP)", "port_value": port});
    assert_eq!(
        probes,
        [
            ("/app-health/app/readyz", "10s", "1s", address(9090)),
            ("/app-health/app/livez", "3s", "2s", address(8080)),
        ]
    );
    let source = json!({"fieldRef": {"fieldPath": "status.podIP"}});
    assert_eq!(
        proxy(&injected)["env"],
        json!([{"name": "INSTANCE_IP", "valueFrom": source}])
    );
}

#[test]
fn other_probes_are_unchanged() {
    for probe in [
        json!({"httpGet": {"port": 80}}),
        json!({"grpc": {"port": 80}}),
        json!({"exec": {"command": ["a"]}}),
        json!({"tcpSocket": {"port": "unknown"}}),
    ] {
        let pod = with_fields(&json!({"livenessProbe": probe}));
        let (injected, _) = inject(&pod, &Config::default()).unwrap();
        assert_eq!(
            injected["spec"]["containers"][0],
            pod["spec"]["containers"][0]
        );
        let listeners = &configuration(&injected)["static_resources"]["listeners"];
        assert_eq!(listeners.as_array().unwrap().len(), 4);
        assert!(proxy(&injected).get("env").is_none());
    }
}

#[test]
fn tcp_probes_stay_if_the_pod_or_the_configuration_decides() {
    let probed = with_fields(&json!({"livenessProbe": {"tcpSocket": {"port": 80}}}));
    let mut declined = probed.clone();
    declined["metadata"]["annotations"] = json!({"sidecar.istio.io/rewriteAppHTTPProbers": "no"});
    assert!(inject(&declined, &Config::default()).is_err());
    declined["metadata"]["annotations"] =
        json!({"sidecar.istio.io/rewriteAppHTTPProbers": "false"});
    let mut own = probed.clone();
    let containers = own["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": CONTAINER, "args": ["-c", "/etc/envoy.yaml"]}));
    let custom = Config {
        bootstrap: Some(json!({})),
        ..Config::default()
    };
    for (pod, config, warns) in [
        (&declined, &Config::default(), false),
        (&own, &Config::default(), true),
        (&probed, &custom, true),
        (&pod(), &custom, false),
    ] {
        let (injected, warnings) = inject(pod, config).unwrap();
        assert_eq!(
            injected["spec"]["containers"][0],
            pod["spec"]["containers"][0]
        );
        assert_eq!(warnings.len(), usize::from(warns), "{warnings:?}");
    }
}

#[test]
fn a_probe_whose_original_is_lost_is_refused() {
    let pod = with_fields(&json!({"livenessProbe": {"tcpSocket": {"port": 80}}}));
    let (mut injected, _) = inject(&pod, &Config::default()).unwrap();
    injected["spec"]["initContainers"] = json!([]);
    let problem = inject(&injected, &Config::default())
        .unwrap_err()
        .to_string();
    assert!(
        problem.contains("livenessProbe of container \"app\""),
        "{problem}"
    );
}

#[test]
fn readiness_is_chosen_by_annotations() {
    let injected = injected(&json!({
        "readiness.status.sidecar.istio.io/initialDelaySeconds": "1",
        "readiness.status.sidecar.istio.io/periodSeconds": "2",
        "readiness.status.sidecar.istio.io/failureThreshold": "30",
    }));
    let probe = &proxy(&injected)["readinessProbe"];
    let expected = ["initialDelaySeconds", "periodSeconds", "failureThreshold"];
    let found = expected.map(|field| probe[field].as_u64());
    assert_eq!(found, [Some(1), Some(2), Some(30)]);
}

#[test]
fn annotations_without_an_effect_are_named() {
    let annotations = json!({
        "prometheus.io/port": "9",
        "sidecar.istio.io/bootstrapOverride": "x",
        "sidecar.istio.io/inject": "true",
        "sidecar.istio.io/userVolume": "{}",
        "proxy.istio.io/config": "concurrency: 1\ndrainDuration: 5s\nproxyMetadata: {A: b}",
        "traffic.sidecar.istio.io/excludeOutboundPorts": "1",
    });
    let (_, warnings) = inject(&annotated(&annotations), &Config::default()).unwrap();
    let no_effect = "has no effect on the built-in sidecar";
    assert_eq!(
        warnings,
        [
            format!("annotation sidecar.istio.io/bootstrapOverride {no_effect}"),
            format!("annotation sidecar.istio.io/userVolume {no_effect}"),
            format!("drainDuration of annotation proxy.istio.io/config {no_effect}"),
        ]
    );
}

#[test]
fn values_that_the_proxy_would_not_start_with_are_refused() {
    let refused = json!({
        "proxy.istio.io/config": "interceptionMode: TPROXY\nproxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}",
        "sidecar.istio.io/logLevel": "loud",
        "sidecar.istio.io/proxyCPU": "much",
        "sidecar.istio.io/rewriteAppHTTPProbers": "maybe",
    });
    let problem = refusal(&refused, &Config::default());
    for part in [
        "CAP_NET_ADMIN",
        "DNS proxy",
        "logLevel \"loud\": give one of trace,",
        "proxyCPU \"much\": a quantity",
        "rewriteAppHTTPProbers",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
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
