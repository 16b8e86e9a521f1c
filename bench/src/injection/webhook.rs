//! A process of the webhook, with its own CA in a simulated API server.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use interceptor_testkit::{apiserver::ApiServer, https::Server, interceptor};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::configuration::Sidecar;
use crate::process::peak_memory;

const NAMESPACE: &str = "interceptor-system";
const CONFIGURATION: &str = "interceptor-injector";
const SERVER_NAME: &str = "interceptor-webhook.interceptor-system.svc";
const GROUP: &str = "admissionregistration.k8s.io/v1";
const KIND: &str = "MutatingWebhookConfiguration";
const TIMEOUT: Duration = Duration::from_secs(30);

/// The process. Killed when dropped.
pub(super) struct Webhook {
    process: Child,
    https: SocketAddr,
    http: SocketAddr,
    bundle: Vec<u8>,
    api: ApiServer,
    _directory: TempDir,
}

impl Webhook {
    /// Starts it, and waits until it is ready.
    pub(super) fn start(sidecar: &Sidecar) -> Result<Self> {
        let directory = TempDir::new()?;
        let api = ApiServer::start()?;
        let service = json!({"name": "interceptor-webhook", "namespace": NAMESPACE});
        api.put(json!({
            "apiVersion": GROUP,
            "kind": KIND,
            "metadata": {"name": CONFIGURATION},
            "webhooks": [{"name": "injector.example.org", "clientConfig": {"service": service}}],
        }))?;
        let kubeconfig = directory.path().join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig())?;
        // If the benchmark is killed, its webhook is, too.
        let mut process = Command::new("setpriv")
            .arg("--pdeathsig=KILL")
            .arg(interceptor::binary())
            .args([
                "webhook",
                "--listen=127.0.0.1:0",
                "--http-address=127.0.0.1:0",
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(sidecar.arguments(directory.path())?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = process.stderr.take().context("its standard error")?;
        let addresses = listening(BufReader::new(log));
        let mut webhook = Self {
            process,
            https: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            bundle: Vec::new(),
            api,
            _directory: directory,
        };
        (webhook.https, webhook.http) = addresses?;
        webhook.wait_until_ready()?;
        webhook.bundle = webhook.published()?;
        Ok(webhook)
    }

    /// Where to send reviews.
    pub(super) fn server(&self) -> Server<'_> {
        Server {
            address: self.https,
            name: SERVER_NAME,
            bundle: &self.bundle,
        }
    }

    /// The largest size of its memory so far, in bytes.
    pub(super) fn peak_memory(&self) -> Result<f64> {
        peak_memory(self.process.id())
    }

    /// The value of a metric, by its name and labels.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("no metric {name}"))?;
        Ok(value.trim().parse()?)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let response = self.get("/readyz")?;
            if response.contains("200 OK") {
                return Ok(());
            }
            ensure!(start.elapsed() < TIMEOUT, "not ready: {response}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn published(&self) -> Result<Vec<u8>> {
        let found = self.api.get(GROUP, KIND, "", CONFIGURATION);
        let bundle = found
            .as_ref()
            .and_then(|found| found.pointer("/webhooks/0/clientConfig/caBundle"))
            .and_then(Value::as_str);
        Ok(STANDARD.decode(bundle.context("no caBundle")?)?)
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\n\r\n"
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}

/// The addresses of HTTPS and HTTP, from the log. The rest of it is read, and dropped.
fn listening(log: impl BufRead + Send + 'static) -> Result<(SocketAddr, SocketAddr)> {
    let (send, addresses) = mpsc::channel();
    thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some(found) = addresses_in(&line) {
                let _closed = send.send(found);
            }
        }
    });
    match addresses.recv_timeout(TIMEOUT) {
        Ok(found) => Ok(found),
        Err(_) => bail!("the webhook does not listen"),
    }
}

/// `listening on 127.0.0.1:4711 (HTTPS) and 127.0.0.1:4712 (HTTP)`
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, addresses) = line.split_once("listening on ")?;
    let (https, http) = addresses.split_once(" (HTTPS) and ")?;
    let http = http.strip_suffix(" (HTTP)")?;
    Some((https.parse().ok()?, http.parse().ok()?))
}
