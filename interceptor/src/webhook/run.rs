//! The webhook's main function: starts its servers and its tasks, and handles SIGTERM.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future;
use kube::Client;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};
use tracing::info;

use super::{
    certificates::{OwnAuthority, Source},
    configuration::Configuration,
    connections::{Connections, Limits},
    handler::Webhook,
    health::{self, Health, Part},
    identity::Identity,
    injector::Injector,
    maintenance::{self, Maintenance},
    metrics::Metrics,
    options::WebhookOptions,
    other_injectors::{self, Others},
    registration::Registration,
    secret::SecretStore,
    server,
};
use crate::{
    listen::listen,
    sidecar::{self, Plan, SidecarOptions},
};

/// How long requests may take that are in progress when the webhook stops accepting.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the webhook until SIGTERM or SIGINT.
pub(crate) fn run(options: &WebhookOptions, sidecar: &SidecarOptions) -> Result<()> {
    let plan = sidecar.plan()?;
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(serve(options, sidecar, plan))
}

async fn serve(options: &WebhookOptions, sidecar: &SidecarOptions, plan: Plan) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let injector = Injector::default();
    let metrics = Metrics::new(injector.clone());
    let health = Health::new();
    let identity = Identity::default();
    let http = listen(options.http_address, "--http-address").await?;
    let https = listen(options.listen, "--listen").await?;
    let address = https.local_addr()?;
    info!(
        "listening on {address} (HTTPS) and {} (HTTP)",
        http.local_addr()?
    );
    let status = health::router(health.clone(), metrics.clone());
    tokio::spawn(async move { axum::serve(http, status).await });

    let others = Others::default();
    let webhook = Webhook::new(
        injector.clone(),
        others.clone(),
        metrics.clone(),
        options.max_in_flight,
        options.max_body,
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _closed = stopped.await;
    };
    let tls = server::tls(&identity)?;
    let connections = Connections::new(Limits::DEFAULT, metrics.connections.clone());
    let router = webhook.router();
    let serving = server::serve(https, tls, router, connections, stopped, CLOSE_TIMEOUT);
    let serving = tokio::spawn(serving);

    let client = client(options, sidecar, &plan).await?;
    let inputs = sidecar::watch(&plan, client.as_ref());
    let configuration = Configuration {
        plan,
        revision: sidecar.revision().to_owned(),
        injector,
        metrics: metrics.clone(),
        health: health.clone(),
        client: client.clone(),
    };
    let watching =
        other_injectors::watch(client.clone(), &options.webhook_config, &others, &metrics);
    let maintenance = Maintenance {
        source: source(options, client)?,
        server_name: service_names(options).swap_remove(0),
        address: maintenance::loopback(address),
        identity,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    tokio::select! {
        _ended = future::join3(maintenance.run(), configuration.run(inputs), watching) => {}
        _ = interrupt.recv() => info!("interrupted"),
        _ = terminate.recv() => {
            info!("SIGTERM: serving for {} s more", options.drain_seconds);
            let problem = "the webhook is terminating".to_owned();
            health.set(Part::Process, Some(problem));
            sleep(Duration::from_secs(options.drain_seconds)).await;
        }
    }
    let _received = stop.send(());
    serving.await.context("the HTTPS server panicked")
}

/// The names under which the API server reaches the webhook.
fn service_names(options: &WebhookOptions) -> Vec<String> {
    let (service, namespace) = (&options.service, &options.namespace);
    ["svc", "svc.cluster.local"]
        .map(|suffix| format!("{service}.{namespace}.{suffix}"))
        .to_vec()
}

/// A client of the API server. With certificate and configuration in files, `None` if there is none.
async fn client(
    options: &WebhookOptions,
    sidecar: &SidecarOptions,
    plan: &Plan,
) -> Result<Option<Client>> {
    let is_needed = options.tls_dir.is_none() || plan.needs_cluster();
    match sidecar.access().client().await {
        Ok(client) => Ok(Some(client)),
        Err(error) if is_needed => Err(error),
        Err(error) => {
            info!("no cluster is read: {error:#}");
            if let Some(assumption) = plan.assumption() {
                info!("{assumption}");
            }
            Ok(None)
        }
    }
}

fn source(options: &WebhookOptions, client: Option<Client>) -> Result<Source> {
    let client = match (&options.tls_dir, client) {
        (Some(directory), _) => return Ok(Source::Directory(directory.clone())),
        (None, client) => client.context("without --tls-dir, the webhook needs an API server")?,
    };
    Ok(Source::Own(Box::new(OwnAuthority {
        store: SecretStore::new(client.clone(), &options.namespace, &options.tls_secret),
        registration: Registration::new(client, &options.webhook_config),
        names: service_names(options),
    })))
}
