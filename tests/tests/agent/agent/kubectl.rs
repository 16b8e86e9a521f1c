//! `kubectl interceptor` reaches the agent of a pod's node through the API server, with the rights of
//! deploy/viewer.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
};

use interceptor_testkit::{
    command::{bounded, output, run},
    interceptor,
    lab::wait_until,
    manifests,
    node::{AgentProcess, NAMESPACE, Node, Pod, REMOTE},
    spawn::spawn,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{dialled, expect_captured, new_node, of_mesh};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A node with an agent and a captured pod, and an operator elsewhere.
struct Scene {
    // Dropped first.
    agent: AgentProcess,
    pod: Pod,
    node: Node,
}

/// A binding of the role `interceptor-viewer` to the operator.
fn binding(kind: &str, metadata: &Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": format!("{kind}Binding"),
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": "interceptor-viewer"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "operator"}],
    })
}

impl Scene {
    /// No other test has a pod of that name: agents know the pods of all tests.
    fn new(pod: &str) -> Self {
        let node = new_node();
        node.api
            .put(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"namespace": "shop", "name": "operator"}}))
            .expect("an account");
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let pod = node.run(of_mesh(&node, pod)).expect("a pod");
        expect_captured(&pod);
        symlink(
            interceptor::binary(),
            node.dir().join("kubectl-interceptor"),
        )
        .expect("a link");
        let kubeconfig = node.api.kubeconfig_of("shop", "operator");
        fs::write(node.dir().join("operator"), kubeconfig).expect("a kubeconfig");
        Self { agent, pod, node }
    }

    /// Grants the operator the rights of deploy/viewer.
    fn grant(&self) {
        let mut objects = manifests::render("viewer").expect("manifests");
        objects.push(binding("ClusterRole", &json!({"name": "operator"})));
        objects.push(binding(
            "Role",
            &json!({"namespace": NAMESPACE, "name": "operator"}),
        ));
        for object in objects {
            self.node.api.put(object).expect("a right");
        }
    }

    /// `program`, where the API server is.
    fn in_cluster(&self, program: &str) -> Command {
        let mut command = bounded("nsenter");
        command
            .arg(format!("--net={}", self.node.host.path().display()))
            .arg(program)
            .env("KUBECONFIG", self.node.dir().join("operator"));
        command
    }

    fn plugin(&self, arguments: &[&str]) -> Command {
        let program = self.node.dir().join("kubectl-interceptor");
        let mut command = self.in_cluster(&program.display().to_string());
        command.args(arguments);
        command
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let printed = run(&mut self.plugin(arguments), "");
        printed.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}\n{}", self.agent.log()))
    }

    fn fail(&self, arguments: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = output(&mut self.plugin(arguments), "").expect("a command");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {stdout:?} {stderr}");
        stderr
    }

    fn name(&self) -> String {
        format!("shop/{}", self.pod.manifest.name)
    }
}

#[test]
fn an_operator_sees_a_pod_from_elsewhere() {
    let scene = Scene::new("viewed");
    scene.grant();
    let name = scene.name();
    let screen = scene.succeed(&["status", "viewed", "-n", "shop"]);
    assert!(
        screen.contains(&format!("Pod:                {name}\n")),
        "{screen}"
    );
    assert!(screen.contains("CAPTURED"), "{screen}");
    let json = scene.succeed(&["status", &name, "-o", "json"]);
    let pods: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(pods[0]["pod"]["name"], "viewed", "{pods}");
    // The only agent of the cluster, and that of a node.
    for arguments in [&["status"][..], &["status", "--node", &scene.node.name]] {
        let table = scene.succeed(arguments);
        assert!(table.contains(&name), "{arguments:?}: {table}");
    }
    let explained = scene.succeed(&["explain", &name, "--to", REMOTE, "--from", "uid=1000"]);
    assert!(explained.starts_with("CAPTURED"), "{explained}");
    let explained = scene.succeed(&["explain", &name, "--to", "[fd00:2::9]:80", "-o", "json"]);
    let explained: Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(explained["outcome"], "passed", "{explained}");
    let update = scene.succeed(&["top", &name, "--count", "1", "-o", "json"]);
    let update: Value = serde_json::from_str(&update).expect("JSON");
    assert_eq!(update["pods"][0]["pod"]["name"], "viewed", "{update}");
    assert_eq!(update["pods"].as_array().map(Vec::len), Some(1), "{update}");
}

#[test]
fn an_operator_observes_a_pod_from_elsewhere() {
    let scene = Scene::new("observed");
    scene.grant();
    let mut observe = scene.plugin(&["observe", "observed", "-n", "shop", "--first", "1"]);
    observe.stdout(Stdio::piped());
    let mut observe = spawn(observe).expect("a process");
    // It observes once its request has arrived: until then, flows are not written.
    wait_until("a flow", || {
        dialled(&scene.pod);
        Ok(observe.try_wait()?.is_some())
    })
    .expect("a flow");
    let mut text = String::new();
    let mut stdout = observe.stdout.take().expect("stdout");
    stdout.read_to_string(&mut text).expect("text");
    assert!(text.contains("shop/observed outbound"), "{text}");
    assert!(text.contains(REMOTE), "{text}");
}

#[test]
fn the_page_is_forwarded_until_a_signal() {
    let scene = Scene::new("paged");
    scene.grant();
    let mut page = scene.plugin(&["page", "paged", "-n", "shop"]);
    page.stdout(Stdio::piped());
    let mut page = spawn(page).expect("a process");
    let mut url = String::new();
    let stdout = page.stdout.take().expect("stdout");
    BufReader::new(stdout).read_line(&mut url).expect("a URL");
    let address = url.trim().strip_prefix("http://").expect("a URL");
    let address = address.trim_end_matches('/').to_owned();
    for _ in 0..2 {
        let request = || {
            let mut stream = TcpStream::connect(&address)?;
            let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response)
        };
        let response = scene.node.host.enter(request).expect("a response");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("</html>"), "{response}");
    }
    // The process is that of `timeout`, which passes the signal on, and the exit status back.
    let id = Pid::from_raw(page.id().cast_signed());
    kill(id, Signal::SIGTERM).expect("a signal");
    let status = page.wait().expect("an exit status");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Each error names what is missing.
#[test]
fn errors_of_the_plugin_name_what_is_missing() {
    let mut scene = Scene::new("unviewed");
    let name = scene.name();
    let denied = scene.fail(&["status", &name]);
    let words = [
        "cannot read the pod shop/unviewed",
        "403",
        "kind: ClusterRole",
        "verbs: [create, get]",
    ];
    for word in words {
        assert!(denied.contains(word), "{word}: {denied}");
    }
    scene.grant();
    let unknown = scene.fail(&["status", "shop/no-such-pod"]);
    assert!(
        unknown.contains("there is no pod shop/no-such-pod"),
        "{unknown}"
    );
    let no_agent = scene.fail(&["status", "--node", "other-node"]);
    assert!(
        no_agent.contains("no agent runs on the node other-node"),
        "{no_agent}"
    );
    // Without the right to forward ports.
    let role = |rules: Value| {
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "Role",
            "metadata": {"namespace": NAMESPACE, "name": "interceptor-viewer"},
            "rules": rules,
        })
    };
    let list = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    scene.node.api.put(role(list)).expect("a right");
    let denied = scene.fail(&["status", &name]);
    let words = ["cannot forward the port 15029", "403", "pods/portforward"];
    for word in words {
        assert!(denied.contains(word), "{word}: {denied}");
    }
    scene.grant();
    scene.agent.kill().expect("killed");
    let dead = scene.fail(&["status", &name]);
    let words = [
        "no response of the agent interceptor-system/",
        "Connection refused",
    ];
    for word in words {
        assert!(dead.contains(word), "{word}: {dead}");
    }
}
