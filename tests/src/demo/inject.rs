//! `cargo xtask demo --inject`: a plain Deployment gets a sidecar, by hand and by the webhook, and its
//! pod is run with the real Envoy and captured by the node agent.

mod cli;
mod pods;
mod rotation;
mod screen;

use std::io::{IsTerminal as _, stdout};

use anyhow::{Result, ensure};
use cli::Manifest;
use interceptor_testkit::{
    interruption::was_interrupted,
    node::{AgentProcess, Driver, Node, WebhookProcess},
    sidecar::RecordingServer,
};
use pods::DemoPod;
use screen::Screen;
use serde_json::Value;

/// The namespace with the label `istio-injection: enabled`.
const NAMESPACE: &str = "shop";
/// A server outside the pods.
const REMOTE: &str = "10.2.0.9:8000";
const REMOTE_PORT: u16 = 8000;

/// Runs the demo and returns whether every step succeeded.
pub(crate) fn run() -> Result<bool> {
    let mut screen = Screen::new(stdout().is_terminal());
    match play(&mut screen) {
        Err(error) if !was_interrupted() => {
            screen.fail(&error);
            Ok(false)
        }
        Err(error) => Err(error),
        Ok(()) => {
            screen.summary();
            Ok(true)
        }
    }
}

fn play(screen: &mut Screen) -> Result<()> {
    let node = Node::new(Driver::Systemd)?;
    let manifest = Manifest::write(node.dir())?;
    inject_by_hand(screen, &manifest)?;
    let (_agent, webhook) = start_programs(screen, &node)?;
    let remote = RecordingServer::start(&node.host, "remote", REMOTE_PORT)?;
    let template = cli::template()?;
    let captured = run_injected(screen, &node, &template)?;
    connect(screen, &node, &captured, &remote)?;
    leave_out(screen, &node, &template, &remote)?;
    refuse(screen, &node, &template)?;
    rotation::show(screen, &node, &webhook, &template)?;
    undo(screen, &manifest)
}

/// Starts the node agent and the webhook.
fn start_programs(screen: &mut Screen, node: &Node) -> Result<(AgentProcess, WebhookProcess)> {
    screen
        .step("interceptor agent, interceptor webhook; namespace shop: istio-injection=enabled")?;
    let agent = node.start_ready_agent(&[])?;
    let plugins = node.runtime.plugins()?.join(", ");
    screen.line(&format!("agent ready; CNI plugins: {plugins}"));
    node.enable_injection(NAMESPACE)?;
    let webhook = node.start_webhook(&[])?;
    let certificate = node.certificate_of(&webhook)?;
    screen.line(&format!(
        "webhook ready, UID 65532; certificate {}…, signed by its own CA, which is in caBundle",
        &certificate[..12]
    ));
    Ok((agent, webhook))
}

fn inject_by_hand(screen: &mut Screen, manifest: &Manifest) -> Result<()> {
    screen.step("a plain Deployment: web.yaml")?;
    screen.line(&cli::summary());
    screen
        .step("interceptor inject -f web.yaml --why --namespace-labels istio-injection=enabled")?;
    let (columns, reason) = manifest.why()?;
    screen.line(&columns);
    screen.line(&reason);
    screen.step("interceptor inject -f web.yaml --diff")?;
    let diff = manifest.diff()?;
    for line in diff.excerpt() {
        screen.added(line);
    }
    screen.line(&diff.summary());
    Ok(())
}

/// Creates the Deployment's pod and runs it.
fn run_injected(screen: &mut Screen, node: &Node, template: &Value) -> Result<DemoPod> {
    screen
        .step("the Deployment's pod web-0 is created: the API server calls the webhook over TLS")?;
    let admitted = pods::create(node, NAMESPACE, "web-0", template)?;
    ensure!(admitted.has_sidecar(), "no sidecar: {}", admitted.audit);
    screen.line(&format!("audit log: {}", admitted.audit));
    screen.step("the pod's containers start, in kubelet's order")?;
    let mut pod = DemoPod::set_up(node, &admitted)?;
    screen.line(&pod.start_proxy(node)?);
    screen.line(&pod.start_app(node)?);
    Ok(pod)
}

/// A connection out and one in.
fn connect(
    screen: &mut Screen,
    node: &Node,
    pod: &DemoPod,
    remote: &RecordingServer,
) -> Result<()> {
    screen.step("a request out and one in: what Envoy gets, and who responds")?;
    screen.line(&pod.request_out(REMOTE, remote)?);
    screen.line(&pod.request_in(node)?);
    Ok(())
}

/// A pod that is not injected.
fn leave_out(
    screen: &mut Screen,
    node: &Node,
    template: &Value,
    remote: &RecordingServer,
) -> Result<()> {
    screen.step("a pod with the label sidecar.istio.io/inject: \"false\"")?;
    let label = ("labels", "sidecar.istio.io/inject", "false");
    let template = pods::with(template, label);
    let admitted = pods::create(node, NAMESPACE, "web-plain", &template)?;
    ensure!(!admitted.has_sidecar(), "it has a sidecar");
    let mut pod = DemoPod::set_up(node, &admitted)?;
    pod.start_app(node)?;
    screen.line(&pod.request_past(REMOTE, remote)?);
    screen.line(&pod.explain_uncaptured(REMOTE)?);
    Ok(())
}

/// A pod that must not be created.
fn refuse(screen: &mut Screen, node: &Node, template: &Value) -> Result<()> {
    let key = "traffic.sidecar.istio.io/excludeOutboundPorts";
    screen.step(&format!("a pod with the annotation {key}: \"80x\""))?;
    let template = pods::with(template, ("annotations", key, "80x"));
    let refusal = pods::refusal(node, NAMESPACE, "web-bad", &template)?;
    for part in [key, "80x", "give port numbers"] {
        ensure!(refusal.contains(part), "no {part:?} in: {refusal}");
    }
    screen.wrapped(&refusal);
    Ok(())
}

/// Removes the sidecar from the injected manifest.
fn undo(screen: &mut Screen, manifest: &Manifest) -> Result<()> {
    screen
        .step("interceptor inject -f web.yaml | interceptor inject --uninject | cmp - web.yaml")?;
    let bytes = manifest.uninjected()?;
    screen.line(&format!("equal: all {bytes} bytes"));
    Ok(())
}
