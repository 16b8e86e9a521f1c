//! `interceptor webhook` on the node, called by its API server.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{NAMESPACE, Node, http};
use crate::{
    actor::User,
    https::{Protocol, Server},
    interceptor,
    lab::wait_until,
    manifests,
    sidecar::launch::LaunchContext,
    webhook::{ARGUMENTS, Webhook},
};

/// The webhook's `ServiceAccount`, and its Service.
const NAME: &str = "interceptor-webhook";
/// Its `MutatingWebhookConfiguration`.
const CONFIGURATION: &str = "interceptor-injector";
/// The user of its image.
const USER: User = User::new(65532, 65532);
/// Objects of its manifests that the API server does not have.
const NOT_SERVED: [&str; 3] = ["Service", "Deployment", "PodDisruptionBudget"];

/// Time limit of a response of its HTTP server.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// The webhook. Killed when dropped.
pub struct WebhookProcess {
    webhook: Webhook,
    /// The node's network namespace.
    host: PathBuf,
}

impl Node {
    /// Applies `deploy/webhook`, and labels the namespace: its pods are to be injected.
    pub fn enable_injection(&self, namespace: &str) -> Result<()> {
        for object in manifests::render("webhook")? {
            let kind = object["kind"].as_str().unwrap_or_default();
            if !NOT_SERVED.contains(&kind) {
                self.api.put(object)?;
            }
        }
        let labels = json!({"istio-injection": "enabled"});
        let metadata = json!({"name": namespace, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.api.put(object).map(drop)
    }

    /// Starts the webhook with additional options, without privileges and with the permissions of its
    /// `ServiceAccount`. Returns when it is ready and the only endpoint of its Service.
    pub fn start_webhook(&self, options: &[&str]) -> Result<WebhookProcess> {
        let id = self.new_id();
        let kubeconfig = self.dir().join(format!("webhook-{id}.kubeconfig"));
        fs::write(&kubeconfig, self.api.kubeconfig_of(NAMESPACE, NAME))?;
        let log = self.dir().join(format!("webhook-{id}.log"));
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let arguments = ARGUMENTS.into_iter().chain([&*kubeconfig]);
        let arguments = arguments.chain(options.iter().copied());
        let arguments: Vec<_> = arguments.map(str::to_owned).collect();
        let context = LaunchContext {
            netns: &self.host,
            cgroup: &self.cgroup.child("system.slice/webhook")?,
            user: USER,
        };
        let command = context.command(&interceptor::binary(), &arguments)?;
        let webhook = WebhookProcess {
            webhook: Webhook::start(command, log)?,
            host: self.host.path().to_owned(),
        };
        let ready = || {
            Ok(webhook
                .get("/readyz")
                .is_ok_and(|(status, _)| status == 200))
        };
        wait_until("the webhook is ready", ready).with_context(|| webhook.log())?;
        let addresses = [webhook.webhook.https];
        self.api.set_endpoints(NAMESPACE, NAME, &addresses);
        Ok(webhook)
    }

    /// Creates a pod as a client of the API server does: admission webhooks are called. Returns the
    /// stored object, or the message of the refusal.
    pub fn create(&self, namespace: &str, pod: &Value) -> Result<Result<Value, String>> {
        self.block_on(self.api.create_pod(namespace, pod))
    }

    /// The SHA-256 of the certificate that the webhook serves, if the API server accepts it.
    pub fn certificate_of(&self, webhook: &WebhookProcess) -> Result<String> {
        let server = Server {
            address: webhook.webhook.https,
            name: &format!("{NAME}.{NAMESPACE}.svc"),
            bundle: &self.ca_bundle()?,
        };
        let stream = self.block_on(server.connect(Protocol::Http2))??;
        let (_, session) = stream.get_ref();
        let certificates = session.peer_certificates().context("no certificate")?;
        let certificate = certificates.first().context("no certificate")?;
        Ok(format!("{:x}", Sha256::digest(certificate)))
    }

    /// The CAs that the API server trusts for the webhook.
    fn ca_bundle(&self) -> Result<Vec<u8>> {
        let group = "admissionregistration.k8s.io/v1";
        let kind = "MutatingWebhookConfiguration";
        let object = self.api.get(group, kind, "", CONFIGURATION);
        let object = object.with_context(|| format!("no {kind}"))?;
        let bundle = object["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        Ok(STANDARD.decode(bundle.context("no caBundle")?)?)
    }

    /// Runs `future` in the node's network namespace.
    fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> Result<T> {
        self.host.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(future))
        })
    }
}

impl WebhookProcess {
    /// Its response: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(&self.host, self.webhook.http, path, HTTP_TIMEOUT)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.webhook.log()
    }
}
