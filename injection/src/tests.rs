//! Properties of the whole function.

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::json;

use super::{decision::Reason, *};

/// Both sidecars, native and classic. The template is our own.
fn configuration() -> impl Strategy<Value = Config> {
    let sidecar = any::<bool>().prop_flat_map(|is_native| {
        prop_oneof![
            2 => Just(istio(is_native)),
            // The built-in configuration is large.
            1 => Just(built_in(is_native, Some(json!({"admin": {}})))),
            1 => Just(built_in(is_native, None)),
        ]
    });
    sidecar.prop_map(|sidecar| Config {
        rules: decision::Rules::default(),
        sidecar,
    })
}

fn built_in(is_native: bool, bootstrap: Option<Value>) -> Sidecar {
    let config = builtin::Config {
        is_native,
        bootstrap,
        ..builtin::Config::default()
    };
    Sidecar::Builtin(Box::new(config), |_, _| Ok(()))
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

/// The pod's own settings of the proxy.
fn own_proxy() -> impl Strategy<Value = Value> {
    let resources = prop::option::of(prop::sample::select(vec![
        json!({"limits": {"cpu": "50m"}}),
        json!({"requests": {"memory": "2Gi"}, "claims": []}),
    ]));
    let parts = (
        resources,
        prop::option::of(probe()),
        strings(),
        any::<bool>(),
    );
    parts.prop_map(|(resources, startup, unknown, has_env)| {
        let mut proxy = json!({"name": "istio-proxy", "image": "auto"});
        // Not null: a merge deletes such a field, and a record restores it behind the others.
        if !unknown.is_null() {
            proxy["fieldOfTheFuture"] = unknown;
        }
        if let Some(resources) = resources {
            proxy["resources"] = resources;
        }
        if let Some(probe) = startup {
            proxy["startupProbe"] = probe;
        }
        if has_env {
            proxy["env"] = json!([{"name": "INSTANCE_IP", "value": "mine"}]);
            proxy["ports"] = json!([{"containerPort": 15090, "name": "metrics"}]);
        }
        proxy
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
    let own = prop::option::weighted(0.3, own_proxy());
    let lists = (containers(), prop::option::of(containers()), volumes, own);
    (strings(), strings(), lists, strings()).prop_map(|(labels, annotations, lists, unknown)| {
        let (mut containers, init, volumes, own) = lists;
        if let Some(own) = own {
            containers.as_array_mut().unwrap().push(own);
        }
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

/// Each probe of a container has one action.
fn assert_one_action(container: &Value) -> Result<(), TestCaseError> {
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        let Some(probe) = container[probe].as_object() else {
            continue;
        };
        let actions = ["httpGet", "tcpSocket", "grpc", "exec"];
        let actions = actions.iter().filter(|action| probe.contains_key(**action));
        prop_assert_eq!(actions.count(), 1, "{}", container);
    }
    Ok(())
}

/// Values that a strategy draws, the same in each run.
fn drawn<T>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    let mut draw = || strategy.new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| draw()).collect()
}

/// The properties hold for something: a property of own proxies needs pods that have them.
#[test]
fn the_drawn_pods_are_not_all_alike() {
    let config = Config {
        rules: decision::Rules::default(),
        sidecar: built_in(true, None),
    };
    let [mut own, mut probed, mut other] = [0; 3];
    for pod in drawn(400, pod()) {
        let text = pod.to_string();
        own += usize::from(text.contains("\"istio-proxy\""));
        other += usize::from(!text.is_ascii());
        let result = injected(&pod, &config).pod;
        probed += usize::from(result.to_string().contains("/app-health/"));
    }
    assert!(
        own > 80 && probed > 80 && other > 80,
        "{own} {probed} {other}"
    );
}

#[test]
fn a_pod_may_have_hundreds_of_containers() {
    let of = |name: &str, count: usize| -> Value {
        let containers = (0..count).map(|number| {
            json!({
                "name": format!("{name}-{number}"),
                "image": "é",
                "livenessProbe": {"tcpSocket": {"port": 1000 + number}},
                "readinessProbe": {"tcpSocket": {"port": 2000 + number}},
            })
        });
        containers.collect()
    };
    let pod = json!({"spec": {"containers": of("c", 200), "initContainers": of("i", 50)}});
    for is_native in [true, false] {
        for sidecar in [built_in(is_native, None), istio(is_native)] {
            let config = Config {
                rules: decision::Rules::default(),
                sidecar,
            };
            let once = injected(&pod, &config);
            assert_eq!(once.warnings, [""; 0]);
            assert!(!once.pod.to_string().contains("tcpSocket\":{\"port\":1"));
            assert_eq!(injected(&once.pod, &config).pod, once.pod);
            assert_eq!(original(&once.pod), pod);
        }
    }
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
            assert_one_action(container)?;
            for variable in items(&container["env"]) {
                prop_assert!(variable["value"].is_null() || variable["valueFrom"].is_null());
            }
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

#[test]
fn a_pods_node_decides_where_nodes_differ() {
    let sidecar = Sidecar::ByNode(Box::new(ByNode {
        nodes: ["new".to_owned()].into(),
        there: built_in(true, None),
        elsewhere: built_in(false, None),
    }));
    let config = Config {
        rules: decision::Rules::default(),
        sidecar,
    };
    for (node, is_native) in [
        (json!("new"), true),
        (json!("old"), false),
        (json!("unknown"), false),
        (json!(null), false),
    ] {
        let pod = json!({"spec": {"nodeName": node, "containers": [{"name": "app"}]}});
        let result = injected(&pod, &config).pod;
        let list = if is_native {
            "initContainers"
        } else {
            "containers"
        };
        assert!(
            containers::find(&result, list, containers::PROXY).is_some(),
            "{result}"
        );
    }
}

#[test]
fn a_second_injection_says_what_it_replaces() {
    let config = |image: &str| Config {
        rules: decision::Rules::default(),
        sidecar: Sidecar::Builtin(
            Box::new(builtin::Config {
                image: image.to_owned(),
                ..builtin::Config::default()
            }),
            |_, _| Ok(()),
        ),
    };
    let replaced = |pod: &Value| {
        let replaced = injected(pod, &config("envoy:2")).replaced;
        replaced.map(|replaced| replaced.to_string())
    };
    let pod = json!({"spec": {"containers": [{"name": "app"}]}});
    assert_eq!(replaced(&pod), None);
    let ours = injected(&pod, &config("envoy:1")).pod;
    let expected = "replaces the sidecar of an earlier injection by this program, image envoy:1";
    assert_eq!(replaced(&ours).as_deref(), Some(expected));
    let istios = json!({
        "metadata": {"annotations": {status::STATUS: r#"{"containers":["istio-proxy"]}"#}},
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy", "image": "proxy:1"}]},
    });
    let expected = "replaces the sidecar of an injection by Istio, image proxy:1";
    assert_eq!(replaced(&istios).as_deref(), Some(expected));
}
