//! A certificate that is replaced while pods are created.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    interruption::ensure_uninterrupted,
    node::{NAMESPACE as SYSTEM, Node, WebhookProcess},
};
use serde_json::Value;

use super::{NAMESPACE, pods, screen::Screen};

const SECRET: &str = "interceptor-webhook-tls";
/// The number of pods to create, at least.
const CREATES: u32 = 500;
/// Time limit of the webhook's new certificate: it checks the Secret every ten seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two pods before the new certificate.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn show(
    screen: &mut Screen,
    node: &Node,
    webhook: &WebhookProcess,
    template: &Value,
) -> Result<()> {
    screen.step("the webhook's certificate is replaced while pods are created")?;
    let before = node.certificate_of(webhook)?;
    invalidate(node)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut after = before.clone();
    let mut created = 0;
    while created < CREATES || after == before {
        ensure_uninterrupted()?;
        let name = format!("burst-{created}");
        let admitted = pods::create(node, NAMESPACE, &name, template)?;
        ensure!(admitted.has_sidecar(), "{name} has no sidecar");
        created += 1;
        if after == before {
            ensure!(Instant::now() < deadline, "no other certificate");
            after = node.certificate_of(webhook)?;
            thread::sleep(PAUSE);
        }
    }
    screen.line(&format!(
        "{created} pods created, 0 failures; certificate {}… → {}…",
        &before[..12],
        &after[..12]
    ));
    Ok(())
}

/// Replaces the certificate in the Secret by one that is for no name of the Service: the webhook
/// issues another, as when it is due.
fn invalidate(node: &Node) -> Result<()> {
    let secret = node.api.get("v1", "Secret", SYSTEM, SECRET);
    let mut secret = secret.context("no Secret")?;
    let data = &mut secret["data"];
    for (from, to) in [("ca.crt", "tls.crt"), ("ca.key", "tls.key")] {
        data[to] = data[from].clone();
    }
    node.api.put(secret).map(drop)
}
