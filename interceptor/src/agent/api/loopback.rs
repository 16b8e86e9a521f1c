//! The API on a TCP port of the loopback interface, where `kubectl port-forward` ends.
//!
//! The agent's network is that of the node, so every process of the node can connect. Requests are
//! served only from sockets of root, as those of kubelet and of the container runtime are, and only with
//! a Host that a browser sends to a port-forward.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, header::HOST, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    spawn,
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};

use super::error::ApiError;
use crate::netns::sock_diag::SockDiag;

/// Interval between attempts to listen: another process, or the previous agent, may have the port.
const LISTEN_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as without free file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long a client may take to send the head of a request, also the next one on its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections of root. A browser uses up to six.
const MAX_CONNECTIONS: usize = 96;
/// Open connections of others, which are refused.
const MAX_REFUSED: usize = 8;

/// Headers of each response. The page replaces the first one.
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Serves the routes on this port. Does not return: the agent captures pods also without it.
pub(super) async fn serve(port: u16, routes: Router) -> ! {
    let server = Server {
        served: Places::new(MAX_CONNECTIONS, checked(routes)),
        refused: Places::new(MAX_REFUSED, with_headers(refusal())),
    };
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => server.accept(stream),
            Err(error) => {
                warn!("the page cannot accept a connection, retrying: {error}");
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_first = true;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if is_first => warn!(
                "the page is not available, as the agent cannot listen on {address}, retrying: \
                 {error}. Stop the process that uses the port, or set --page-port"
            ),
            Err(_again) => {}
        }
        is_first = false;
        sleep(LISTEN_RETRY_INTERVAL).await;
    }
}

struct Server {
    served: Places,
    refused: Places,
}

impl Server {
    fn accept(&self, stream: TcpStream) {
        let places = if is_of_root(&stream) {
            &self.served
        } else {
            &self.refused
        };
        places.serve(stream);
    }
}

/// A limited number of connections with the same routes.
struct Places {
    free: Arc<Semaphore>,
    routes: Router,
}

impl Places {
    fn new(count: usize, routes: Router) -> Self {
        let free = Arc::new(Semaphore::new(count));
        Self { free, routes }
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else {
            debug!("closed a new connection to the page: too many are open");
            return;
        };
        let routes = self.routes.clone();
        spawn(async move {
            let _place = place;
            let mut builder = Builder::new(TokioExecutor::new()).http1_only();
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT);
            let service = TowerToHyperService::new(routes);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                debug!("a connection to the page failed: {error}");
            }
        });
    }
}

/// Whether the other end is a socket of root in the agent's network namespace. A connection from
/// elsewhere has none there.
fn is_of_root(stream: &TcpStream) -> bool {
    let owner = || {
        let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
        SockDiag::open()?.owner(client, server)
    };
    match owner() {
        Ok(uid) => uid == Some(0),
        Err(error) => {
            warn!("cannot determine the owner of a connection to the page, refused: {error}");
            false
        }
    }
}

/// Routes for a client that is not root.
fn refusal() -> Router {
    Router::new().fallback(|| async {
        ApiError::forbidden(
            "only root of this node may read this port: use kubectl port-forward, which needs access \
             to the agent's pod",
        )
    })
}

fn checked(routes: Router) -> Router {
    with_headers(routes.layer(middleware::from_fn(check_request)))
}

/// A page from elsewhere, whose name may resolve to a loopback address, sends another Host, and a
/// browser marks the requests of other origins.
async fn check_request(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_loopback(headers.get(HOST)) {
        let text = "the Host of a request must be localhost or a loopback address";
        return ApiError::forbidden(text).into_response();
    }
    if is_of_other_origin(headers) && request.uri().path() != "/" {
        return ApiError::forbidden("requests of other origins are refused").into_response();
    }
    next.run(request).await
}

fn is_loopback(host: Option<&HeaderValue>) -> bool {
    let host = host.and_then(|host| host.to_str().ok());
    let Some(Ok(authority)) = host.map(str::parse::<Authority>) else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn is_of_other_origin(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "same-origin" && site != "none")
}

fn with_headers(routes: Router) -> Router {
    routes.layer(middleware::map_response(async |mut response: Response| {
        for (name, value) in HEADERS {
            let headers = response.headers_mut();
            headers
                .entry(name)
                .or_insert(HeaderValue::from_static(value));
        }
        response
    }))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    async fn status(path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let routes = Router::new()
            .route("/", get("page"))
            .route("/v1/pods", get("pods"));
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = checked(routes).oneshot(request).await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        response.status()
    }

    #[tokio::test]
    async fn only_a_loopback_host_is_served() {
        for (host, expected) in [
            ("localhost", StatusCode::OK),
            ("LocalHost:15029", StatusCode::OK),
            ("127.0.0.1:8080", StatusCode::OK),
            ("[::1]:8080", StatusCode::OK),
            ("localhost.example.org", StatusCode::FORBIDDEN),
            ("10.1.0.2:15029", StatusCode::FORBIDDEN),
            ("user@evil.example", StatusCode::FORBIDDEN),
            ("", StatusCode::FORBIDDEN),
        ] {
            assert_eq!(
                status("/v1/pods", &[("host", host)]).await,
                expected,
                "{host}"
            );
        }
        assert_eq!(status("/v1/pods", &[]).await, StatusCode::FORBIDDEN);
    }

    /// A link from elsewhere to the page works.
    #[tokio::test]
    async fn other_origins_cannot_request_data() {
        for (site, path, expected) in [
            ("same-origin", "/v1/pods", StatusCode::OK),
            ("none", "/v1/pods", StatusCode::OK),
            ("cross-site", "/v1/pods", StatusCode::FORBIDDEN),
            ("same-site", "/v1/pods", StatusCode::FORBIDDEN),
            ("cross-site", "/", StatusCode::OK),
        ] {
            let headers = [("host", "localhost:1"), ("sec-fetch-site", site)];
            assert_eq!(status(path, &headers).await, expected, "{site} {path}");
        }
    }
}
