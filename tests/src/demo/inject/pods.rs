//! The demo's pods: created by the API server, run by the node, and connected.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    actor::Actor,
    interceptor,
    lab::wait_until,
    node::{Node, ObjectPod, test_images},
    sidecar::{
        ClientView, RecordingServer, ServerResponse,
        envoy::{
            INBOUND_CLUSTER, OUTBOUND_CLUSTER, connections_by_destination, connections_by_worker,
        },
        send_http,
    },
};
use serde_json::{Value, json};

const PROXY: &str = "istio-proxy";
/// The server's port in the pod.
const APP_PORT: u16 = 8080;

/// A pod that the API server has stored.
pub(crate) struct Admitted {
    pub(crate) object: Value,
    /// What the audit log has of the webhook's call.
    pub(crate) audit: String,
}

/// Creates a pod from a template, as a controller does.
pub(crate) fn create(
    node: &Node,
    namespace: &str,
    name: &str,
    template: &Value,
) -> Result<Admitted> {
    let calls = node.api.admissions().len();
    let created = node.create(namespace, &pod(name, template))?;
    let object = created.map_err(anyhow::Error::msg)?;
    let admissions = node.api.admissions();
    let audit = admissions.get(calls).map(audit).unwrap_or_default();
    Ok(Admitted { object, audit })
}

/// The message with which the API server refuses a pod.
pub(crate) fn refusal(
    node: &Node,
    namespace: &str,
    name: &str,
    template: &Value,
) -> Result<String> {
    let created = node.create(namespace, &pod(name, template))?;
    created.err().context("the pod was created")
}

/// A template with one more label or annotation.
pub(crate) fn with(template: &Value, (kind, key, value): (&str, &str, &str)) -> Value {
    let mut template = template.clone();
    template["metadata"][kind][key] = json!(value);
    template
}

fn pod(name: &str, template: &Value) -> Value {
    let mut pod = template.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod
}

/// `decision=injected reason=label_true ...`
fn audit(admission: &Value) -> String {
    let annotations = admission["annotations"].as_object();
    let pairs = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let (_, key) = key.split_once('/')?;
            Some(format!("{key}={}", value.as_str()?))
        });
    pairs.collect::<Vec<_>>().join(" ")
}

impl Admitted {
    pub(crate) fn has_sidecar(&self) -> bool {
        self.object["spec"]["initContainers"][0]["name"] == PROXY
    }
}

/// A pod on the node.
pub(crate) struct DemoPod {
    pod: ObjectPod,
    app: Option<Actor>,
}

impl DemoPod {
    pub(crate) fn set_up(node: &Node, admitted: &Admitted) -> Result<Self> {
        let pod = node.set_up(&admitted.object, test_images()?)?;
        Ok(Self { pod, app: None })
    }

    /// Starts the proxy, and waits for its startup probe.
    pub(crate) fn start_proxy(&mut self, node: &Node) -> Result<String> {
        let start = Instant::now();
        let name = self.pod.start_next(node)?;
        ensure!(name.as_deref() == Some(PROXY), "{name:?} is the first");
        let time = start.elapsed().as_millis();
        let pid = self.pod.container(PROXY)?.pid();
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = read("status")?;
        for line in ["Uid:\t1337\t", "CapBnd:\t0000000000000000"] {
            ensure!(status.contains(line), "{line}: {status}");
        }
        let mounts = read("mountinfo")?;
        ensure!(
            mounts.contains(" / / ro,"),
            "the root is writable: {mounts}"
        );
        Ok(format!(
            "1. {PROXY}: Envoy, UID 1337, no capability, read-only root; ready on 15021 in {time} ms"
        ))
    }

    /// Starts the other containers.
    pub(crate) fn start_app(&mut self, node: &Node) -> Result<String> {
        self.pod.start_all(node)?;
        self.app = Some(self.pod.container("app")?.actor()?);
        // Not through the proxy.
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, APP_PORT));
        let app = self.app.as_ref().context("no app")?;
        wait_until("the server responds", || {
            Ok(send_http(app, own)?.response.is_ok())
        })?;
        Ok(format!(
            "2. server and app; the pod's address is {}",
            self.pod.ip()?
        ))
    }

    /// The app sends a request, which its proxy forwards.
    pub(crate) fn request_out(&self, to: &str, remote: &RecordingServer) -> Result<String> {
        let destination = to.parse()?;
        let before = self.seen(15001, OUTBOUND_CLUSTER, destination)?;
        let view = self.send(to)?;
        let response = response(&view)?;
        ensure!(response.peer != view.local, "past the proxy: {view:?}");
        ensure!(remote.clients().contains(&response.peer), "{view:?}");
        let after = self.seen(15001, OUTBOUND_CLUSTER, destination)?;
        ensure!(after == before.and_one(), "{before:?} {after:?}");
        Ok(row("app", to, "15001", &response.server))
    }

    /// A client outside the pod sends a request to its server.
    pub(crate) fn request_in(&self, node: &Node) -> Result<String> {
        let server = self.server()?;
        let before = self.seen(15006, INBOUND_CLUSTER, server)?;
        let view = send_http(&node.client, server)?;
        let response = response(&view)?;
        ensure!(response.peer.ip().to_string() == "127.0.0.6", "{view:?}");
        let after = self.seen(15006, INBOUND_CLUSTER, server)?;
        ensure!(after == before.and_one(), "{before:?} {after:?}");
        Ok(row(
            "client",
            &server.to_string(),
            "15006",
            &response.server,
        ))
    }

    /// The app sends a request, and no proxy forwards it.
    pub(crate) fn request_past(&self, to: &str, remote: &RecordingServer) -> Result<String> {
        let view = self.send(to)?;
        let response = response(&view)?;
        ensure!(response.peer == view.local, "not direct: {view:?}");
        ensure!(remote.clients().contains(&view.local), "{view:?}");
        Ok(format!(
            "created without a sidecar; app → {to}: {} responds, no proxy between",
            response.server
        ))
    }

    /// The message of `interceptor explain`.
    pub(crate) fn explain_uncaptured(&self, to: &str) -> Result<String> {
        let netns = self.pod.pod.netns()?.path().display().to_string();
        let explained = interceptor::try_run(["explain", "--netns", &netns, "--to", to])?;
        let error = String::from_utf8_lossy(&explained.stderr).trim().to_owned();
        ensure!(error.contains("is not captured"), "{error}");
        Ok(format!(
            "interceptor explain --to {to}: the pod is not captured"
        ))
    }

    fn send(&self, to: &str) -> Result<ClientView> {
        send_http(self.app.as_ref().context("no app")?, to.parse()?)
    }

    fn server(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.pod.ip()?, APP_PORT))
    }

    /// Envoy's own counts.
    fn seen(&self, port: u16, cluster: &str, destination: SocketAddr) -> Result<Seen> {
        self.pod.pod.netns()?.enter(|| {
            let forwarded = connections_by_destination(cluster)?;
            Ok(Seen {
                accepted: connections_by_worker(port)?.iter().sum(),
                forwarded: forwarded.get(&destination).copied().unwrap_or_default(),
            })
        })
    }
}

/// The number of connections of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// By a listener.
    accepted: u32,
    /// To an original destination.
    forwarded: u32,
}

impl Seen {
    const fn and_one(self) -> Self {
        Self {
            accepted: self.accepted + 1,
            forwarded: self.forwarded + 1,
        }
    }
}

fn response(view: &ClientView) -> Result<&ServerResponse> {
    view.response
        .as_ref()
        .map_err(|why| anyhow::anyhow!("{why}: {view:?}"))
}

fn row(client: &str, to: &str, port: &str, server: &str) -> String {
    format!("{client:<6} → {to:<14} Envoy :{port}, original destination {to:<14} → {server}")
}
