//! A template of Istio's kind, from files and from a cluster. The template is our own: Istio's are
//! compared in `injection`.

use std::{fs, path::PathBuf, process::Output};

use interceptor_testkit::apiserver::ApiServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{inject, interceptor, stderr, stdout, succeeded, text};

const TEMPLATE: &str = r#"
metadata:
  annotations:
    istio.io/rev: {{ .Revision | default "default" | quote }}
spec:
  {{- if not .Values.pilot.cni.enabled }}
  initContainers:
  - name: istio-init
    image: {{ .ProxyImage }}
  {{- end }}
  containers:
  - name: istio-proxy
    image: {{ .ProxyImage }}
    env:
    - name: WORKLOAD
      value: {{ .DeploymentMeta.Name | quote }}
    - name: MESH
      value: {{ .MeshConfig.TrustDomain | quote }}
    {{- range $name, $value := .ProxyConfig.ProxyMetadata }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
  volumes:
  - name: workload-socket
    emptyDir: {}
"#;

const VALUES: &str = r#"{"global": {"hub": "registry.example", "tag": "1",
    "proxy": {"image": "proxyv2"}}, "pilot": {"cni": {"enabled": false}}}"#;

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web   # the app
        image: web
        readinessProbe:
          tcpSocket:
            port: 80
";

/// The key `config` of the injector's `ConfigMap`.
fn config(policy: &str) -> String {
    let template = TEMPLATE.replace('\n', "\n    ");
    format!("policy: {policy}\ntemplates:\n  sidecar: |{template}\n")
}

struct Files {
    directory: TempDir,
}

impl Files {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Self { directory };
        files.write("config", &config(policy));
        files.write("values", VALUES);
        files.write("mesh", "trustDomain: mesh.example\n");
        files.write("web.yaml", MANIFEST);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs a command with these files and arguments.
    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let mut command = interceptor(&[command]);
        command.arg("-f").arg(self.path("web.yaml"));
        for (option, name) in [
            ("--injectConfigFile", "config"),
            ("--valuesFile", "values"),
            ("--meshConfigFile", "mesh"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        command.args(arguments).output().unwrap()
    }
}

#[test]
fn the_template_is_rendered_and_undone() {
    let files = Files::new("enabled");
    let arguments = ["--native-sidecar", "false"];
    let output = succeeded(files.run("inject", &arguments));
    let injected = stdout(&output);
    for part in [
        "image: \"registry.example/proxyv2:1\"",
        "- name: web   # the app",
        "name: istio-init",
        "value: mesh.example",
        "value: web\n",
        "istio.io/rev: default",
    ] {
        let plain = part.replace('"', "");
        assert!(
            injected.contains(part) || injected.contains(&plain),
            "{part}: {injected}"
        );
    }
    files.write("web.yaml", injected);
    let again = succeeded(files.run("inject", &arguments));
    assert_eq!(stdout(&again), injected);
    let original = inject(&["--uninject", "-f", text(&files.path("web.yaml"))]);
    assert_eq!(stdout(&succeeded(original)), MANIFEST);
}

#[test]
fn interception_is_a_choice() {
    let files = Files::new("enabled");
    for (choice, has_init) in [("keep", true), ("agent", false), ("istio-init", true)] {
        let output = succeeded(files.run("inject", &["--interception", choice]));
        assert_eq!(stdout(&output).contains("istio-init"), has_init, "{choice}");
    }
}

#[test]
fn the_policy_holds_for_inject_but_not_for_kube_inject() {
    let files = Files::new("disabled");
    let output = succeeded(files.run("inject", &[]));
    assert_eq!(stdout(&output), MANIFEST);
    let reason = "deployment/web skipped: the policy is disabled, and no label or annotation of \
                  the pod decides\n";
    assert_eq!(stderr(&output), reason);
    let output = succeeded(files.run("kube-inject", &[]));
    assert!(stdout(&output).contains("istio-proxy"));
}

#[test]
fn the_agents_table_checks_annotations() {
    let files = Files::new("enabled");
    let annotation = "annotations:\n        traffic.sidecar.istio.io/includeOutboundPorts: 80-90\n";
    let manifest = MANIFEST.replacen("labels:", &format!("{annotation}      labels:"), 1);
    files.write("web.yaml", &manifest);
    let builtin = inject(&["-f", text(&files.path("web.yaml"))]);
    for output in [files.run("inject", &[]), builtin] {
        assert_eq!(output.status.code(), Some(1));
        let place = "web.yaml: document 1, line 9: deployment/web: annotation \
                     traffic.sidecar.istio.io/includeOutboundPorts \"80-90\": \"80-90\" is not a port";
        let message = stderr(&output);
        assert_eq!(message.matches(place).count(), 1, "{message}");
    }
}

#[test]
fn the_cluster_has_what_no_file_has() {
    let server = ApiServer::start().unwrap();
    let files = Files::new("enabled");
    let map = |name: &str, data| {
        let metadata = json!({"name": name, "namespace": "mesh"});
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        server.put(map).unwrap();
    };
    map(
        "istio-sidecar-injector-canary",
        json!({"config": config("enabled"), "values": VALUES}),
    );
    map(
        "istio-canary",
        json!({"mesh": "trustDomain: cluster.example"}),
    );
    files.write("kubeconfig", &server.kubeconfig());
    let (manifest, kubeconfig) = (files.path("web.yaml"), files.path("kubeconfig"));
    let arguments = |command| {
        let mut command = interceptor(&[command, "-f", text(&manifest), "-i", "mesh", "-c"]);
        command.arg(&kubeconfig).args(["-r", "canary"]);
        command
    };
    let kube_inject = arguments("kube-inject").output().unwrap();
    let injected = stdout(&succeeded(kube_inject)).to_owned();
    assert!(injected.contains("cluster.example"), "{injected}");
    let from_cluster = arguments("inject").arg("--from-cluster").output().unwrap();
    assert_eq!(stdout(&succeeded(from_cluster)), injected);
    let mesh = files.path("mesh");
    let with_file = arguments("kube-inject")
        .arg("--meshConfigFile")
        .arg(mesh)
        .output();
    let with_file = succeeded(with_file.unwrap());
    assert!(stdout(&with_file).contains("mesh.example"));
    let missing = arguments("kube-inject")
        .args(["-i", "other"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
    let missing = arguments("kube-inject")
        .args(["--meshConfigMapName", "none"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let message = stderr(&missing);
    assert!(
        message.contains("ConfigMap mesh/none, key mesh: the ConfigMap does not exist"),
        "{message}"
    );
}

/// A `ProxyConfig` that sets the variable LEVEL.
fn proxy_config(namespace: &str, level: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "ProxyConfig",
        "metadata": {"name": "level", "namespace": namespace},
        "spec": {"environmentVariables": {"LEVEL": level}},
    })
}

/// A cluster whose user may read ConfigMaps and nodes.
fn cluster_with_istio(files: &Files) -> ApiServer {
    let server = ApiServer::start().unwrap();
    let put = |api_version: &str, kind: &str, name: &str, mut object: Value| {
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": name});
        if !kind.starts_with("ClusterRole") {
            object["metadata"]["namespace"] = json!("istio-system");
        }
        server.put(object).unwrap();
    };
    let injector = json!({"data": {"config": config("enabled"), "values": VALUES}});
    put("v1", "ConfigMap", "istio-sidecar-injector", injector);
    put("v1", "ConfigMap", "istio", json!({"data": {"mesh": ""}}));
    put("v1", "ServiceAccount", "user", json!({}));
    let group = "rbac.authorization.k8s.io/v1";
    let permission = json!({
        "apiGroups": [""],
        "resources": ["configmaps", "nodes"],
        "verbs": ["get", "list"],
    });
    put(group, "ClusterRole", "user", json!({"rules": [permission]}));
    let subject = json!({"kind": "ServiceAccount", "name": "user", "namespace": "istio-system"});
    let role = json!({"kind": "ClusterRole", "name": "user"});
    let binding = json!({"roleRef": role, "subjects": [subject]});
    put(group, "ClusterRoleBinding", "user", binding);
    files.write("kubeconfig", &server.kubeconfig());
    server
}

#[test]
fn proxy_configs_of_the_cluster_apply() {
    let files = Files::new("enabled");
    let server = cluster_with_istio(&files);
    server.put(proxy_config("istio-system", "root")).unwrap();
    server.put(proxy_config("shop", "namespace")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = interceptor(arguments);
        command.arg("-f").arg(files.path("web.yaml"));
        command.arg("-c").arg(files.path("kubeconfig"));
        succeeded(command.output().unwrap())
    };
    for (arguments, level) in [
        (&["inject", "--from-cluster"][..], "value: root"),
        (
            &["inject", "--from-cluster", "-n", "shop"],
            "value: namespace",
        ),
        (&["kube-inject", "-n", "shop"], "value: namespace"),
    ] {
        let output = run(arguments);
        assert!(stdout(&output).contains(level), "{arguments:?} {output:?}");
    }
    server.set_installed("proxyconfigs", false);
    let output = run(&["inject", "--from-cluster"]);
    assert!(!stdout(&output).contains("LEVEL"), "{output:?}");
    assert_eq!(stderr(&output), "deployment/web injected\n");
    server.set_installed("proxyconfigs", true);
    server.authenticate_as("istio-system", "user");
    let output = run(&["inject", "--from-cluster"]);
    assert!(!stdout(&output).contains("LEVEL"), "{output:?}");
    let message = stderr(&output);
    assert_eq!(
        message.matches("without ProxyConfigs").count(),
        1,
        "{message}"
    );
}

/// As istioctl, which passes through what has no pod template.
#[test]
fn proxy_configs_in_the_input_stay_as_they_are() {
    let files = Files::new("enabled");
    let resource = format!("# of the shop\n{}\n", proxy_config("default", "input"));
    files.write("web.yaml", &format!("{resource}---\n{MANIFEST}"));
    for command in ["inject", "kube-inject"] {
        let output = succeeded(files.run(command, &[]));
        let written = stdout(&output);
        assert!(written.starts_with(&resource), "{written}");
        assert!(written.contains("istio-proxy"), "{written}");
        assert_eq!(written.matches("LEVEL").count(), 1, "{written}");
    }
}

#[test]
fn an_incomplete_or_contradictory_choice_is_refused() {
    let files = Files::new("enabled");
    let config = files.path("config");
    for (arguments, problem) in [
        (&["--injectConfigFile", text(&config)][..], "--valuesFile"),
        (&["--valuesFile", text(&config)], "--injectConfigFile"),
        (&["--interception", "agent"], "--injectConfigFile"),
    ] {
        let output = inject(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    }
    let output = files.run("inject", &["--hold"]);
    assert_eq!(output.status.code(), Some(2));
    for part in ["--hold", "cannot be used with"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    let map = "apiVersion: v1\nkind: ConfigMap\ndata: {config: 'policy: enabled'}\n";
    files.write("config", map);
    let output = files.run("inject", &[]);
    let problem = "is the manifest of an object (v1 ConfigMap)";
    assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    files.write("config", "templates: {sidecar: '{{ nope }}'}");
    let output = files.run("inject", &[]);
    assert!(stderr(&output).contains("nope"), "{}", stderr(&output));
}

#[test]
fn kube_inject_has_the_messages_of_istioctl() {
    let files = Files::new("enabled");
    let skipped = MANIFEST.replace("    spec:", "    spec:\n      hostNetwork: true");
    let skipped = skipped.replace("name: web", "name: node");
    let declines = MANIFEST.replace("app: web", "sidecar.istio.io/inject: \"false\"");
    files.write(
        "web.yaml",
        &format!("{MANIFEST}---\n{skipped}---\n{declines}"),
    );
    let output = files.run(
        "kube-inject",
        &["--timeout", "1s", "--native-sidecar", "false"],
    );
    assert!(stdout(&succeeded(output.clone())).contains("istio-proxy"));
    assert_eq!(
        stderr(&output),
        "interceptor: --timeout has no effect: no webhook and no istiod is called\n\
         ===> Skipping injection because Deployment \"default/node\" has host networking enabled\n\
         ===> Skipping injection because Deployment \"default/web\" has sidecar injection disabled\n"
    );
    let missing = interceptor(&["kube-inject"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    let operator = files.run("kube-inject", &["--operatorFileName", "x"]);
    assert!(
        stderr(&operator).contains("--valuesFile"),
        "{}",
        stderr(&operator)
    );
}
