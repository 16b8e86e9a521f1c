//! The webhook's main function: starts its servers and keeps certificate and `caBundle` current.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use futures_util::future;
use interceptor_injection::Config;
use kube::Client;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::TcpStream,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::{
    certificates::{OwnAuthority, Source},
    handler::Webhook,
    health::{self, Health},
    identity::{Identity, provider},
    injector::Injector,
    metrics::Metrics,
    options::WebhookOptions,
    other_injectors::{self, Others},
    registration::Registration,
    secret::SecretStore,
    server,
};
use crate::api_server;

/// Interval at which certificate and `caBundle` are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The same after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the webhook's connection to itself.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests may take that are in progress when the webhook stops accepting.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the webhook injects, and where the API server is.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// The injector's revision, for audit annotations.
    pub(crate) revision: String,
    /// The default is that of the pod's service account.
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Runs the webhook until SIGTERM or SIGINT.
pub(crate) fn run(options: &WebhookOptions, setup: Setup) -> Result<()> {
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(serve(options, setup))
}

async fn serve(options: &WebhookOptions, setup: Setup) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let injector = Injector::new(&setup.revision, setup.config);
    let metrics = Metrics::new(injector.clone());
    let health = Health::new("the certificate is not loaded yet");
    let identity = Identity::default();
    let plain = server::listen(options.http_address, "--http-address").await?;
    let secure = server::listen(options.listen, "--listen").await?;
    let address = secure.local_addr()?;
    info!(
        "listening on {address} (HTTPS) and {} (HTTP)",
        plain.local_addr()?
    );
    let status = health::router(health.clone(), metrics.clone());
    tokio::spawn(async move { axum::serve(plain, status).await });

    let others = Others::default();
    let webhook = Webhook::new(
        injector,
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
    let serving = server::serve(secure, tls, webhook.router(), stopped, CLOSE_TIMEOUT);
    let serving = tokio::spawn(serving);

    let client = client(options, setup.kubeconfig.as_deref()).await?;
    let watching =
        other_injectors::watch(client.clone(), &options.webhook_config, &others, &metrics);
    let maintenance = Maintenance {
        source: source(options, client)?,
        server_name: service_names(options).swap_remove(0),
        address: loopback(address),
        identity,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    tokio::select! {
        _ended = future::join(maintenance.run(), watching) => {}
        _ = interrupt.recv() => info!("interrupted"),
        _ = terminate.recv() => {
            info!("SIGTERM: serving for {} s more", options.drain_seconds);
            health.set(vec!["the webhook is terminating".to_owned()]);
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

/// A client of the API server. With a certificate in files, `None` if there is none.
async fn client(options: &WebhookOptions, kubeconfig: Option<&Path>) -> Result<Option<Client>> {
    match api_server::config(kubeconfig, None).await {
        Ok(config) => api_server::client(config).map(Some),
        Err(error) if options.tls_dir.is_none() => Err(error),
        Err(error) => {
            info!("no cluster is read: {error:#}");
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

/// Keeps the certificate, its publication and the readiness current.
struct Maintenance {
    source: Source,
    /// The name that the certificate must be valid for.
    server_name: String,
    /// Where the webhook reaches itself.
    address: SocketAddr,
    identity: Identity,
    metrics: Metrics,
    health: Health,
}

impl Maintenance {
    #[expect(
        clippy::infinite_loop,
        reason = "the caller drops the future at SIGTERM"
    )]
    async fn run(&self) {
        let mut last = String::new();
        loop {
            let problem = match self.check().await {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            if problem != last {
                match problem.as_str() {
                    "" => info!("ready"),
                    problem => warn!("not ready, retrying: {problem}"),
                }
            }
            let is_ready = problem.is_empty();
            self.health
                .set(problem.lines().map(str::to_owned).collect());
            last = problem;
            sleep(if is_ready {
                CHECK_INTERVAL
            } else {
                RETRY_INTERVAL
            })
            .await;
        }
    }

    async fn check(&self) -> Result<()> {
        let bundle = self
            .source
            .refresh(&self.identity, SystemTime::now())
            .await?;
        let certificate = self
            .identity
            .current()
            .context("no certificate is loaded")?;
        let since = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
        let expiry = since.unwrap_or_default().as_secs();
        self.metrics
            .expires(i64::try_from(expiry).unwrap_or(i64::MAX));
        anyhow::ensure!(
            certificate.not_after > SystemTime::now(),
            "the certificate has expired"
        );
        let Some(bundle) = bundle else {
            return Ok(());
        };
        let tested = timeout(SELF_TEST_TIMEOUT, self.connect(&bundle)).await;
        tested
            .context("no response within its timeout")
            .and_then(|tested| tested)
            .context("the webhook cannot reach itself over TLS")
    }

    /// Connects as the API server does: with the CA that is published.
    async fn connect(&self, bundle: &str) -> Result<()> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.server_name.clone())?;
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        Ok(())
    }
}

/// `address`, or localhost if it is unspecified.
fn loopback(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    address
}
