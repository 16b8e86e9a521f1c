//! Properties of the whole function.

use proptest::prelude::*;
use serde_json::json;

use super::{decision::Reason, *};

/// Both sidecars, native and classic. The template is our own.
fn configuration() -> impl Strategy<Value = Config> {
    (any::<bool>(), any::<bool>()).prop_map(|(is_native, is_istio)| Config {
        rules: decision::Rules::default(),
        sidecar: if is_istio {
            istio(is_native)
        } else {
            let config = builtin::Config {
                is_native,
                // The built-in one is large.
                bootstrap: Some(json!({"admin": {}})),
                ..builtin::Config::default()
            };
            Sidecar::Builtin(Box::new(config), |_, _| Ok(()))
        },
    })
}

fn istio(native_sidecar: bool) -> Sidecar {
    const TEMPLATE: &str = r#"
        metadata:
          labels:
            service.istio.io/canonical-name: {{ .DeploymentMeta.Name | quote }}
          annotations:
            istio.io/rev: {{ .Revision | default "default" | quote }}
        spec:
          initContainers:
          - name: istio-init
            image: {{ .ProxyImage }}
          {{- if .NativeSidecars }}
          - name: istio-proxy
            restartPolicy: Always
          {{- else }}
          containers:
          - name: istio-proxy
          {{- end }}
            image: {{ .ProxyImage }}
            ports:
            - containerPort: 15090
              name: http-envoy-prom
          volumes:
          - name: istio-envoy
            emptyDir: {}
        "#;
    let sources = istio::Sources {
        inject: TEMPLATE,
        values: r#"{"global": {"hub": "h", "tag": "t", "proxy": {"image": "proxyv2"}},
            "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true}}"#,
        mesh: "",
    };
    let options = istio::Options {
        native_sidecar,
        ..istio::Options::default()
    };
    Sidecar::Istio(Arc::new(istio::Config::load(&sources, options).unwrap()))
}

fn subject() -> Subject {
    Subject {
        namespace: "shop".to_owned(),
        ..Subject::default()
    }
}

fn injected(pod: &Value, config: &Config) -> Injected {
    match inject(pod, &subject(), config) {
        Ok(Outcome::Inject(injected)) => injected,
        other => panic!("{other:?}: {pod:#}"),
    }
}

fn original(pod: &Value) -> Value {
    match uninject::uninject(pod).unwrap() {
        Uninjected::Exact(original) => original,
        other => panic!("{other:?}: {pod:#}"),
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "\\PC{1,12}"]
}

fn strings() -> impl Strategy<Value = Value> {
    let map = prop::collection::btree_map(text(), text(), 0..4);
    prop_oneof![Just(Value::Null), map.prop_map(|map| json!(map)),]
}

fn probe() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        Just(json!("http")),
        (1..65535_u16).prop_map(|port| json!(port))
    ];
    let handler = (0..4, port, text()).prop_map(|(kind, port, path)| match kind {
        0 => json!({"httpGet": {"path": path, "port": port}}),
        1 => json!({"tcpSocket": {"port": port}}),
        2 => json!({"grpc": {"port": 9000}}),
        _ => json!({"exec": {"command": [path]}}),
    });
    (handler, any::<bool>()).prop_map(|(mut probe, period)| {
        if period {
            probe["periodSeconds"] = json!(7);
        }
        probe
    })
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let parts = (
        text(),
        prop::option::of(probe()),
        prop::option::of(probe()),
        strings(),
    );
    parts.prop_map(move |(image, readiness, liveness, unknown)| {
        let mut container = json!({
            "name": name,
            "image": image,
            "ports": [{"containerPort": 8080, "name": "http"}],
            "fieldOfTheFuture": unknown,
        });
        for (field, probe) in [("readinessProbe", readiness), ("livenessProbe", liveness)] {
            if let Some(probe) = probe {
                container[field] = probe;
            }
        }
        container
    })
}

fn containers() -> impl Strategy<Value = Value> {
    (1..5_usize).prop_flat_map(|count| {
        let containers: Vec<_> = (0..count).map(|n| container(format!("c{n}"))).collect();
        containers.prop_map(Value::from)
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let volumes = prop::option::of(Just(json!([{"name": "data", "emptyDir": {}}])));
    let lists = (containers(), prop::option::of(containers()), volumes);
    (strings(), strings(), lists, strings()).prop_map(|(labels, annotations, lists, unknown)| {
        let (containers, init, volumes) = lists;
        let mut pod = json!({"spec": {"containers": containers, "fieldOfTheFuture": unknown}});
        if !labels.is_null() {
            pod["metadata"]["labels"] = labels;
        }
        if !annotations.is_null() {
            pod["metadata"]["annotations"] = annotations;
        }
        let init = init.map(|init| {
            let text = init.to_string().replace("\"name\":\"c", "\"name\":\"i");
            serde_json::from_str(&text).unwrap()
        });
        for (field, list) in [("initContainers", init), ("volumes", volumes)] {
            if let Some(list) = list {
                pod["spec"][field] = list;
            }
        }
        pod
    })
}

fn items(list: &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().collect()
}

fn assert_unique(items: &[&Value], key: &str) -> Result<(), TestCaseError> {
    let mut values: Vec<_> = items.iter().map(|item| item[key].to_string()).collect();
    values.sort_unstable();
    values.dedup();
    prop_assert_eq!(values.len(), items.len(), "{}: {:?}", key, items);
    Ok(())
}

proptest! {
    #[test]
    fn uninject_gives_the_original(pod in pod(), config in configuration()) {
        let injected = injected(&pod, &config).pod;
        prop_assert_ne!(&injected, &pod);
        prop_assert_eq!(original(&injected), pod);
    }

    #[test]
    fn a_second_injection_changes_nothing(pod in pod(), config in configuration()) {
        let once = injected(&pod, &config).pod;
        let twice = injected(&once, &config).pod;
        prop_assert_eq!(twice.to_string(), once.to_string());
    }

    #[test]
    fn another_configuration_injects_as_if_it_were_the_first(
        pod in pod(),
        first in configuration(),
        second in configuration(),
    ) {
        let both = injected(&injected(&pod, &first).pod, &second).pod;
        prop_assert_eq!(both, injected(&pod, &second).pod);
    }

    #[test]
    fn the_order_of_another_webhook_does_not_matter(pod in pod(), config in configuration()) {
        let add = |mut pod: Value| {
            let containers = pod["spec"]["containers"].as_array_mut().unwrap();
            containers.push(json!({"name": "other"}));
            pod["metadata"]["annotations"]["other"] = json!("1");
            pod
        };
        let before = injected(&add(pod.clone()), &config).pod;
        // Reinvocation: the API server calls us again after the other webhook.
        let after = injected(&add(injected(&pod, &config).pod), &config).pod;
        prop_assert_eq!(original(&before), original(&after));
        prop_assert_eq!(&before["spec"], &after["spec"]);
    }

    #[test]
    fn names_and_places_are_unique(pod in pod(), config in configuration()) {
        let injected = injected(&pod, &config).pod;
        let spec = &injected["spec"];
        let containers = [&spec["initContainers"], &spec["containers"]];
        let containers: Vec<_> = containers.into_iter().flat_map(items).collect();
        assert_unique(&containers, "name")?;
        assert_unique(&items(&spec["volumes"]), "name")?;
        for container in containers {
            assert_unique(&items(&container["volumeMounts"]), "mountPath")?;
            assert_unique(&items(&container["ports"]), "containerPort")?;
            assert_unique(&items(&container["env"]), "name")?;
        }
        let label = &injected["metadata"]["labels"]["service.istio.io/canonical-name"];
        prop_assert!(label.as_str().is_none_or(|label| label.len() <= 63));
    }

    #[test]
    fn only_metadata_and_spec_change(pod in pod(), config in configuration()) {
        let mut pod = pod;
        pod["apiVersion"] = json!("v1");
        pod["status"] = json!({"phase": "x"});
        let injected = injected(&pod, &config).pod;
        for patch in json_patch::diff(&pod, &injected).0 {
            let path = patch.path().to_string();
            let allowed = ["/metadata", "/metadata/labels", "/metadata/annotations", "/spec"];
            let inside = allowed.iter().any(|part| {
                path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            prop_assert!(inside, "{}", path);
        }
    }

    #[test]
    fn no_object_makes_it_panic(value in junk(), config in configuration()) {
        let _result = inject(&value, &subject(), &config);
        let _result = uninject::uninject(&value);
    }
}

/// Objects with the fields of pods, and anything in them.
fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "[{}\":,a]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let keys = "metadata|spec|annotations|labels|containers|initContainers|volumes|name|env\
            |readinessProbe|httpGet|sidecar\\.istio\\.io/status|interceptor\\.dev/undo\
            |proxy\\.istio\\.io/overrides";
        let map = prop::collection::btree_map(keys, inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
            map.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn a_skipped_pod_has_a_reason() {
    let pod = json!({"spec": {"hostNetwork": true}});
    let config = Config {
        rules: decision::Rules::default(),
        sidecar: Sidecar::Builtin(Box::default(), |_, _| Ok(())),
    };
    let outcome = inject(&pod, &subject(), &config).unwrap();
    assert!(matches!(outcome, Outcome::Skip(Reason::HostNetwork)));
}

#[test]
fn a_pod_of_the_wrong_shape_is_refused() {
    let config = Config {
        rules: decision::Rules::default(),
        sidecar: Sidecar::Builtin(Box::default(), |_, _| Ok(())),
    };
    for (pod, problem) in [
        (json!([]), "the pod is not an object; spec is not an object"),
        (
            json!({"spec": {"containers": {}}}),
            "spec.containers is not a list",
        ),
        (
            json!({"spec": {}, "metadata": {"annotations": "a"}}),
            "metadata.annotations is not an object",
        ),
    ] {
        let refusal = inject(&pod, &subject(), &config).unwrap_err();
        assert_eq!(refusal.to_string(), problem);
    }
}
