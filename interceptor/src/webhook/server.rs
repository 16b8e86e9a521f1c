//! HTTPS and HTTP: connections, and their graceful end.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use axum::{Router, body::Body, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::{ServiceExt as _, service_fn};
use tracing::{debug, warn};

use super::{
    connections::{Connections, OpenConnection},
    identity::{Identity, provider},
};
use crate::host::raise_open_files;

/// Pause after a failed accept, such as without free file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Concurrent requests on a connection: fewer than may be in progress, so that no client needs all.
const MAX_STREAMS: u32 = 256;
/// How long a client may take to read what was sent before its connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval at which an HTTP/2 client must respond to a ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// TLS 1.2 and 1.3 with the certificate of `identity`, for HTTP/2 and HTTP/1.1.
pub(super) fn tls(identity: &Identity) -> Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .context("cannot configure TLS")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves HTTPS until `stop` completes. Then accepts no more connections, and returns when the
/// open ones are closed, or after `drain`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    connections: Connections,
    stop: impl Future<Output = ()>,
    drain: Duration,
) {
    if let Err(error) = raise_open_files() {
        warn!("connections may fail for lack of file descriptors: {error:#}");
    }
    let (stopping, stopped) = watch::channel(false);
    let server = Server {
        acceptor: TlsAcceptor::from(tls),
        router,
        stopped,
    };
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.accept(stream, &connections, &mut tasks),
                Err(error) => {
                    warn!("cannot accept a connection, retrying: {error}");
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            },
            Some(_ended) = tasks.join_next() => {}
            () = &mut stop => break,
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(drain, ended).await.is_err() {
        warn!("closed connections that were still open after {drain:?}");
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Server {
    acceptor: TlsAcceptor,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Server {
    fn accept(&self, stream: TcpStream, connections: &Connections, tasks: &mut JoinSet<()>) {
        let Some(place) = connections.open() else {
            debug!("closed a new connection: all others have requests in progress");
            return;
        };
        let server = self.clone();
        tasks.spawn(async move {
            if let Err(error) = server.serve(stream, &place).await {
                debug!("connection closed: {error:#}");
            }
        });
    }

    async fn serve(mut self, stream: TcpStream, place: &OpenConnection) -> Result<()> {
        stream.set_nodelay(true)?;
        let stream = tokio::select! {
            accepted = self.handshake(stream, place) => accepted?,
            () = place.closing() => return Ok(()),
        };
        let (router, requests) = (self.router.clone(), place.requests());
        let service = service_fn(move |request: Request<_>| {
            let (router, in_progress) = (router.clone(), requests());
            async move {
                let response = router.oneshot(request.map(Body::new)).await;
                drop(in_progress);
                response
            }
        });
        let builder = builder();
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let failed = |error| anyhow!("{error}");
        tokio::select! {
            served = connection.as_mut() => return served.map_err(failed),
            () = place.closing() => {}
            () = self.stops() => {
                connection.as_mut().graceful_shutdown();
                return connection.await.map_err(failed);
            }
        }
        connection.as_mut().graceful_shutdown();
        let closed = timeout(CLOSE_TIMEOUT, connection).await;
        closed.context("not closed in time")?.map_err(failed)
    }

    async fn stops(&mut self) {
        // Fails if the server ends.
        let _stopped = self.stopped.wait_for(|stopped| *stopped).await;
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        place: &OpenConnection,
    ) -> Result<TlsStream<TcpStream>> {
        timeout(place.limits().handshake, self.acceptor.accept(stream))
            .await
            .map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))
            .and_then(|accepted| accepted)
            .context("TLS handshake failed")
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // `Connections` limits the time until a request's headers have arrived.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL);
    builder
}
