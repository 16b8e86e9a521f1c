//! Clients that are slow, silent, or many.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use interceptor_testkit::https::Protocol;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Cluster, Replica, TIMEOUT, has_sidecar, pod, review};

const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are opened at a time.
const BATCH: usize = 275;
const EVICTED: &str = "interceptor_webhook_connections_evicted_total ";

async fn assert_injects(cluster: &Cluster) {
    let created = cluster.api.create_pod("mesh", &pod(&json!({}))).await;
    assert!(has_sidecar(&created.unwrap()));
}

/// How many connections were closed for new ones.
async fn evicted(replica: &Replica) -> u64 {
    let metrics = replica.get("/metrics").await;
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix(EVICTED)?.parse().ok());
    count.unwrap_or(0)
}

/// Opens connections that send nothing until there are more than the webhook keeps open. On a slow
/// machine the webhook closes the first of them before the last one is open, because none sends a
/// TLS handshake in time.
async fn open_too_many(replica: &Replica) -> Vec<TcpStream> {
    let start = Instant::now();
    let mut open = Vec::new();
    while evicted(replica).await == 0 {
        assert!(start.elapsed() < TIMEOUT, "no connection was evicted");
        let batch = (0..BATCH).map(|_| TcpStream::connect(replica.0.https));
        open.extend(join_all(batch).await.into_iter().map(Result::unwrap));
    }
    open
}

#[tokio::test]
async fn silent_connections_keep_no_client_out() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let mut in_use = server.open(Protocol::Http2).await.unwrap();
    let (status, _) = in_use
        .post("/inject", "application/json", review())
        .await
        .unwrap();
    assert!(status.is_success());
    let idle = server.connect(Protocol::Http2).await.unwrap();
    let silent = open_too_many(&replica).await;
    assert_injects(&cluster).await;
    // A connection that has had a request is the last to be closed.
    let (status, _) = in_use
        .post("/inject", "application/json", review())
        .await
        .unwrap();
    assert!(status.is_success());
    drop((silent, idle));
}

/// Sends `text`, then one byte of `rest` after the other, until the server closes the connection.
/// Returns what it sent before.
async fn trickle(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str, rest: u8) -> String {
    let mut response = Vec::new();
    let exchange = async {
        stream.write_all(text.as_bytes()).await?;
        loop {
            tokio::select! {
                read = stream.read_buf(&mut response) => if read? == 0 {
                    return Ok::<_, std::io::Error>(());
                },
                () = sleep(PAUSE) => stream.write_all(&[rest]).await?,
            }
        }
    };
    // The last write may fail.
    let _closed = timeout(TIMEOUT, exchange)
        .await
        .expect("the server closes the connection");
    String::from_utf8(response).unwrap()
}

async fn silent(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let read = timeout(TIMEOUT, stream.read_u8()).await;
    read.expect("the server closes the connection").unwrap_err();
}

#[tokio::test]
async fn slow_clients_are_closed_while_others_are_served() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let connect = || async { server.connect(Protocol::Http1).await.unwrap() };
    let header = "POST /inject HTTP/1.1\r\nhost: webhook\r\nx-slow: ";
    let body = "POST /inject HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\n\
                content-length: 10000\r\n\r\n{";
    let (header, body, (), ()) = tokio::join!(
        async { trickle(connect().await, header, b'a').await },
        async { trickle(connect().await, body, b' ').await },
        silent(replica.0.https),
        async {
            for _ in 0..20 {
                assert_injects(&cluster).await;
                sleep(PAUSE).await;
            }
        },
    );
    assert_eq!(header, "");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert_injects(&cluster).await;
}

#[tokio::test]
async fn one_connection_has_many_requests_at_a_time() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let connection = replica.server(&bundle).open(Protocol::Http2).await.unwrap();
    let requests = (0..1000).map(|_| {
        let mut connection = connection.share().unwrap();
        async move {
            connection
                .post("/inject", "application/json", review())
                .await
        }
    });
    for response in join_all(requests).await {
        let (status, body) = response.unwrap();
        assert_eq!(status, 200, "{body:?}");
    }
}
