//! The admission webhook: the binary, called over TLS by an API server that has the manifests of
//! `deploy/webhook`.

mod admission;
mod certificates;
mod check_inject;
mod clients;
mod configuration;
mod istiod;
mod limits;
mod load;
mod memo;
mod other_injectors;
mod proxy_configs;
mod rights;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use interceptor_testkit::{
    apiserver::ApiServer,
    https::Server,
    interceptor,
    manifests::render,
    webhook::{ARGUMENTS, Webhook},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const NAMESPACE: &str = "interceptor-system";
const NAME: &str = "interceptor-webhook";
const CONFIGURATION: &str = "interceptor-injector";
const SERVER_NAME: &str = "interceptor-webhook.interceptor-system.svc";
const TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster with the webhook's manifests, whose account may do what its roles allow.
struct Cluster {
    api: ApiServer,
    directory: TempDir,
}

impl Cluster {
    fn new() -> Self {
        Self::with("webhook")
    }

    /// With the manifests of a directory below `deploy`.
    fn with(directory: &str) -> Self {
        let api = ApiServer::start().unwrap();
        for object in render(directory).unwrap() {
            let kind = object["kind"].as_str().unwrap();
            if ["Service", "Deployment", "PodDisruptionBudget"].contains(&kind) {
                continue;
            }
            api.put(object).unwrap();
        }
        for (name, labels) in [
            ("mesh", json!({"istio-injection": "enabled"})),
            ("plain", json!({})),
        ] {
            let metadata = json!({"name": name, "labels": labels});
            api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
                .unwrap();
        }
        api.authenticate_as(NAMESPACE, NAME);
        Self {
            api,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a replica of the webhook, without waiting for its readiness.
    fn start(&self, arguments: &[&str]) -> Replica {
        let kubeconfig = self.directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.api.kubeconfig()).unwrap();
        let mut command = command(&kubeconfig);
        command.args(arguments);
        self.run(command)
    }

    /// A replica that this command starts, with its log in a file of its own.
    fn run(&self, command: Command) -> Replica {
        let log = tempfile::Builder::new()
            .prefix("webhook-")
            .suffix(".log")
            .tempfile_in(self.directory.path());
        let (_, log) = log.unwrap().keep().unwrap();
        Replica(Webhook::start(command, log).unwrap())
    }

    /// A replica that is ready, as the only endpoint of the Service.
    async fn serve(&self, arguments: &[&str]) -> Replica {
        let replica = self.start(arguments);
        replica.until_ready().await;
        self.route(&[&replica]);
        replica
    }

    fn route(&self, replicas: &[&Replica]) {
        let addresses: Vec<_> = replicas.iter().map(|replica| replica.0.https).collect();
        self.api.set_endpoints(NAMESPACE, NAME, &addresses);
    }

    /// The CA bundle that the API server uses.
    fn bundle(&self) -> String {
        let found = self.api.get(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "",
            CONFIGURATION,
        );
        let found = found.unwrap();
        let bundle = found["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        String::from_utf8(STANDARD.decode(bundle.unwrap_or_default()).unwrap()).unwrap()
    }

    fn secret(&self) -> Option<Value> {
        self.api
            .get("v1", "Secret", NAMESPACE, "interceptor-webhook-tls")
    }
}

/// A process of the webhook.
struct Replica(Webhook);

/// `interceptor webhook` on free ports. It dies with the tests.
fn command(kubeconfig: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig=KILL", "--"])
        .arg(interceptor::binary())
        .args(ARGUMENTS)
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command
}

impl Replica {
    /// The lines of its log with this text.
    fn logged(&self, text: &str) -> Vec<String> {
        let log = self.0.log();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// The status line and the body of a plain HTTP response.
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.0.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    async fn until(&self, path: &str, expected: &str) {
        let start = Instant::now();
        loop {
            let response = self.get(path).await;
            if response.contains(expected) {
                return;
            }
            assert!(start.elapsed() < TIMEOUT, "no {expected:?} in {response}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_ready(&self) {
        self.until("/readyz", "200 OK").await;
    }

    fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.0.pid()).unwrap();
        kill(Pid::from_raw(process), signal).unwrap();
    }

    fn server<'a>(&self, bundle: &'a str) -> Server<'a> {
        Server {
            address: self.0.https,
            name: SERVER_NAME,
            bundle: bundle.as_bytes(),
        }
    }
}

fn pod(metadata: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web:1", "newField": 1}]},
    });
    for (key, value) in metadata.as_object().unwrap() {
        pod["metadata"][key] = value.clone();
    }
    pod
}

/// A review of a new pod.
fn review() -> String {
    let kind = json!({"kind": "Pod"});
    let request = json!({"uid": "1", "kind": kind, "object": pod(&json!({}))});
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": request,
    });
    review.to_string()
}

fn has_sidecar(pod: &Value) -> bool {
    let lists = ["initContainers", "containers"];
    let mut containers = lists
        .iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten();
    containers.any(|container| container["name"] == "istio-proxy")
}
