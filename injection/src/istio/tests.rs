//! All stages together, with a template of our own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::Owner;

/// Two templates: a sidecar, and one that adds to its proxy.
const CONFIG: &str = r#"
policy: enabled
defaultTemplates: [sidecar]
aliases: {both: [sidecar, more]}
injectedAnnotations: {added: always}
templates:
  sidecar: |
    {{- $native := ne (index .ObjectMeta.Annotations `sidecar.istio.io/nativeSidecar` | default (printf "%t" .NativeSidecars)) "false" }}
    metadata:
      labels:
        name: {{ .DeploymentMeta.Name | trunc 63 | quote }}
      annotations: {
        {{- if .Values.pilot.cni.enabled }}
        mode: "{{ annotation .ObjectMeta `sidecar.istio.io/interceptionMode` .ProxyConfig.InterceptionMode }}",
        {{- end }}
        owner: "{{ .TypeMeta.APIVersion }}/{{ .TypeMeta.Kind }}",
      }
    spec:
      initContainers:
      - name: {{ if .Values.pilot.cni.enabled }}istio-validation{{ else }}istio-init{{ end }}
        image: {{ .ProxyInitImage }}
        args: ["-u", "{{ .ProxyUID }}"]
      {{- if not $native }}
      containers:
      {{- end }}
      - name: istio-proxy
        image: {{ .ProxyImage }}
        {{ if $native }}restartPolicy: Always{{ end }}
        env:
        - name: PROXY_CONFIG
          value: |
            {{ protoToJSON .ProxyConfig }}
        - name: PORTS
          value: '{{ range .Spec.Containers }}{{ range .Ports }}{{ structToJSON . }}{{ end }}{{ end }}'
        resources:
          {{ toYaml (omitNil .Values.global.proxy.resources) | indent 10 }}
        securityContext: {runAsUser: {{ .ProxyUID }}}
      volumes:
      - name: token
        emptyDir:
  more: |
    spec:
      containers:
      - name: istio-proxy
        env:
        - name: MORE
          value: "1"
"#;

const VALUES: &str = r#"{
    "global": {"hub": "h", "tag": "1.30", "network": "", "proxy": {"resources": {"limits": {"cpu": "1", "memory": null}}}},
    "pilot": {"cni": {"enabled": false}},
    "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true}
}"#;

fn config(options: Options) -> Config {
    let sources = Sources {
        inject: CONFIG,
        values: VALUES,
        mesh: "defaultConfig: {drainDuration: 5s}",
    };
    Config::load(&sources, options).unwrap()
}

fn classic() -> Options {
    Options {
        native_sidecar: false,
        ..Options::default()
    }
}

fn subject() -> Subject {
    Subject {
        owner: Some(Owner {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            namespace: "ns".to_owned(),
        }),
        ..Subject::default()
    }
}

fn pod(annotations: &Value) -> Value {
    json!({
        "metadata": {"annotations": annotations, "managedFields": []},
        "spec": {
            "futureField": {"kept": true},
            "containers": [
                {
                    "name": "app",
                    "ports": [{"containerPort": 80, "name": "http"}],
                    "readinessProbe": {"httpGet": {"port": "http", "path": "/ok"}},
                },
                {"name": "istio-proxy", "image": "auto", "env": [{"name": "OWN", "value": "x"}]},
            ],
            "volumes": [{"name": "mine", "emptyDir": {}}],
        },
    })
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let entries = containers::of(pod, list).iter();
    entries
        .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect()
}

fn injected(annotations: &Value, options: Options) -> Value {
    inject(&pod(annotations), &subject(), &config(options))
        .unwrap()
        .0
}

fn variables(pod: &Value) -> BTreeMap<String, String> {
    let proxy = containers::find_any(pod, PROXY).unwrap();
    let variables = proxy["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    variables
        .map(|variable| (text(&variable["name"]), text(&variable["value"])))
        .collect()
}

#[test]
fn a_classic_sidecar_is_last_and_has_the_pods_own_settings() {
    let pod = injected(&json!({"prometheus.io/port": "9"}), classic());
    let proxy = json!({
        "name": "istio-proxy",
        "image": "h/proxyv2:1.30",
        "env": [
            {"name": "PROXY_CONFIG", "value": "{\"drainDuration\":\"5s\"}\n"},
            {"name": "PORTS", "value": "{\"name\":\"http\",\"containerPort\":80}"},
            {"name": "OWN", "value": "x"},
            {"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": "{\"scrape\":\"\",\"path\":\"\",\"port\":\"9\"}"},
            {"name": "ISTIO_KUBE_APP_PROBERS", "value":
                "{\"/app-health/app/readyz\":{\"httpGet\":{\"path\":\"/ok\",\"port\":80}}}"},
        ],
        "resources": {"limits": {"cpu": "1"}},
        "securityContext": {"runAsUser": 1337},
    });
    let status = json!({
        "initContainers": ["istio-init"], "containers": ["istio-proxy"], "volumes": ["token"],
        "imagePullSecrets": null, "revision": "default",
    });
    let overrides =
        json!({"containers": [{"env": [{"name": "OWN", "value": "x"}], "name": "istio-proxy"}]});
    let expected = json!({
        "metadata": {
            "annotations": {
                "owner": "apps/v1/Deployment",
                "proxy.istio.io/overrides": overrides.to_string(),
                "prometheus.io/path": "/stats/prometheus",
                "prometheus.io/port": "15020",
                "prometheus.io/scrape": "true",
                "sidecar.istio.io/status": status.to_string(),
                "added": "always",
            },
            "labels": {"name": "web"},
        },
        "spec": {
            "futureField": {"kept": true},
            "containers": [
                {
                    "name": "app",
                    "ports": [{"containerPort": 80, "name": "http"}],
                    "readinessProbe": {"httpGet": {"port": 15020, "path": "/app-health/app/readyz"}},
                },
                proxy,
            ],
            "volumes": [{"name": "token"}, {"name": "mine", "emptyDir": {}}],
            "initContainers": [{"name": "istio-init", "image": "h/proxyv2:1.30", "args": ["-u", "1337"]}],
        },
    });
    assert_eq!(pod, expected, "{pod:#}");
}

#[test]
fn a_native_sidecar_is_an_init_container() {
    for (annotations, options) in [
        (json!({}), Options::default()),
        (json!({"sidecar.istio.io/nativeSidecar": "true"}), classic()),
    ] {
        let pod = injected(&annotations, options);
        assert_eq!(names(&pod, CONTAINERS), ["app"]);
        assert_eq!(names(&pod, INIT_CONTAINERS), ["istio-init", "istio-proxy"]);
        let proxy = containers::find(&pod, INIT_CONTAINERS, PROXY).unwrap();
        assert_eq!(
            (&proxy["restartPolicy"], &proxy["image"]),
            (&json!("Always"), &json!("h/proxyv2:1.30"))
        );
        assert!(variables(&pod).contains_key("OWN"));
    }
    let declined = injected(
        &json!({"sidecar.istio.io/nativeSidecar": "false"}),
        Options::default(),
    );
    assert_eq!(names(&declined, CONTAINERS), ["app", "istio-proxy"]);
}

#[test]
fn a_second_injection_changes_nothing() {
    for options in [classic(), Options::default()] {
        let config = config(options);
        let security = json!({"runAsUser": 7});
        let mut pod = pod(&json!({"prometheus.io/port": "9", "inject.istio.io/templates": "both"}));
        pod["spec"]["containers"][1]["securityContext"] = security;
        let (once, _) = inject(&pod, &subject(), &config).unwrap();
        let (twice, _) = inject(&once, &subject(), &config).unwrap();
        assert_eq!(once.to_string(), twice.to_string());
        let init = containers::find(&once, INIT_CONTAINERS, INIT).unwrap();
        assert_eq!(init["args"], json!(["-u", "7"]));
        assert_eq!(
            containers::find_any(&once, PROXY).unwrap()["securityContext"]["runAsUser"],
            7
        );
    }
}

#[test]
fn later_templates_add_to_the_one_proxy() {
    for options in [classic(), Options::default()] {
        let pod = injected(&json!({"inject.istio.io/templates": " both "}), options);
        let all = [names(&pod, CONTAINERS), names(&pod, INIT_CONTAINERS)].concat();
        assert_eq!(all.iter().filter(|name| *name == PROXY).count(), 1);
        assert_eq!(variables(&pod)["MORE"], "1");
    }
}

#[test]
fn with_the_agent_no_init_container_is_left() {
    for (keep_validation, expected) in [
        (false, &["istio-proxy"][..]),
        (true, &["istio-validation", "istio-proxy"]),
    ] {
        let options = Options {
            interception: Interception::Agent,
            keep_validation,
            ..Options::default()
        };
        let pod = injected(
            &json!({"sidecar.istio.io/interceptionMode": "TPROXY"}),
            options,
        );
        assert_eq!(names(&pod, INIT_CONTAINERS), expected);
        assert_eq!(containers::annotation(&pod, "mode"), Some("TPROXY"));
    }
}

#[test]
fn the_proxy_config_of_the_pod_counts() {
    let annotations = json!({"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"});
    let pod = injected(&annotations, classic());
    assert_eq!(names(&pod, CONTAINERS), ["istio-proxy", "app"]);
    let expected = "{\"drainDuration\":\"5s\",\"holdApplicationUntilProxyStarts\":true}\n";
    assert_eq!(variables(&pod)["PROXY_CONFIG"], expected);
}

#[test]
fn the_url_and_the_namespace_reach_the_proxy() {
    let mut subject = subject();
    let environment = [("ISTIO_META_NETWORK", "net"), ("OWN", "url")];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    subject.environment = environment.map(owned).into();
    subject.namespace_annotations = [owned(("openshift.io/sa.scc.uid-range", "10/5"))].into();
    let (pod, _) = inject(&pod(&json!({})), &subject, &config(classic())).unwrap();
    assert_eq!(variables(&pod)["OWN"], "url");
    assert_eq!(
        pod["metadata"]["labels"]["topology.istio.io/network"],
        "net"
    );
    let proxy = containers::find_any(&pod, PROXY).unwrap();
    assert_eq!(proxy["securityContext"]["runAsUser"], 14);
}

#[test]
fn what_is_wrong_is_refused_with_its_name() {
    let refused = |annotations: &Value| {
        let result = inject(&pod(annotations), &subject(), &config(classic()));
        result.unwrap_err().to_string()
    };
    for (annotations, parts) in [
        (
            json!({"inject.istio.io/templates": "nope"}),
            ["nope", "more, sidecar"],
        ),
        (
            json!({"sidecar.istio.io/logLevel": "a\nb"}),
            ["logLevel", "control"],
        ),
        (
            json!({"prometheus.io/port": "15090"}),
            ["prometheus.io/port", "Envoy"],
        ),
        (
            json!({"proxy.istio.io/overrides": "["}),
            ["overrides", "JSON"],
        ),
    ] {
        let problem = refused(&annotations);
        assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
    }
}

#[test]
fn a_template_that_fails_is_named() {
    for (template, part) in [
        ("{{ fail `no` }}", "no"),
        ("a: [", "not YAML"),
        ("- a", "not an object"),
        ("spec: {containers: [{image: x}]}", "name"),
    ] {
        let inject_config = json!({"templates": {"sidecar": template}}).to_string();
        let sources = Sources {
            inject: &inject_config,
            values: "{}",
            mesh: "",
        };
        let config = Config::load(&sources, Options::default()).unwrap();
        let problem = inject(&pod(&json!({})), &subject(), &config)
            .unwrap_err()
            .to_string();
        assert!(
            problem.contains("sidecar") && problem.contains(part),
            "{template}: {problem}"
        );
    }
}

#[test]
fn another_dns_policy_is_warned_about() {
    let mut pod = pod(&json!({}));
    pod["spec"]["dnsPolicy"] = json!("None");
    let (_, warnings) = inject(&pod, &subject(), &config(classic())).unwrap();
    assert!(warnings[0].contains("dnsPolicy is None"), "{warnings:?}");
}

/// A finding of the fuzz target `template`.
#[test]
fn a_template_cannot_replace_an_object_of_the_pod() {
    for (template, problem) in [
        ("metadata: x", "metadata is not an object"),
        (
            "metadata: {annotations: [x]}",
            "metadata.annotations is not an object",
        ),
        ("spec: x", "spec is not an object"),
    ] {
        let sources = Sources {
            inject: template,
            values: VALUES,
            mesh: "",
        };
        let config = Config::load(&sources, Options::default()).unwrap();
        let refusal = inject(&pod(&json!({})), &subject(), &config).unwrap_err();
        let expected = format!("template sidecar: with its result, {problem}");
        assert_eq!(refusal.to_string(), expected);
    }
}
