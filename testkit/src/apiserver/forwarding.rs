//! Port-forwards over `WebSockets`, with the subprotocol `v4.channel.k8s.io` as the kubelet has it: of each
//! port one channel for data and one for errors, which both start with the port.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::Result;
use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{
            CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
        },
    },
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{resource::Target, state::State, status::Failure};
use crate::netns::Netns;

/// The subprotocol.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// What a chunk of data is read into.
const CHUNK: usize = 1 << 14;

/// The part of a request that becomes a WebSocket.
pub(super) struct Upgrade {
    on_upgrade: OnUpgrade,
    headers: HeaderMap,
}

impl Upgrade {
    /// Nothing for a request that does not want to become one.
    pub(super) fn of(request: &mut Request<Body>) -> Option<Self> {
        let headers = request.headers().clone();
        headers.get(SEC_WEBSOCKET_KEY)?;
        let on_upgrade = hyper::upgrade::on(request);
        Some(Self {
            on_upgrade,
            headers,
        })
    }
}

/// Whether the request is one for a port-forward.
pub(super) fn is_forward(target: &Target<'_>) -> bool {
    target.resource.plural == "pods" && target.part == Some("portforward")
}

/// Forwards to the network namespace of the pod until either side closes the connection.
pub(super) fn start(
    state: &Arc<State>,
    target: &Target<'_>,
    query: &str,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let (namespace, name) = (
        target.namespace.unwrap_or_default(),
        target.name.unwrap_or_default(),
    );
    let netns = state
        .lock()
        .forwards
        .get(&(namespace.to_owned(), name.to_owned()))
        .cloned();
    let netns = netns.ok_or_else(|| Failure::not_found(&format!("pods \"{name}\"")))?;
    let port = query
        .split('&')
        .find_map(|part| part.strip_prefix("ports=")?.parse().ok());
    let port = port.ok_or_else(|| Failure::bad_request("one port is supported: ports=PORT"))?;
    let Upgrade {
        on_upgrade,
        headers,
    } = upgrade;
    let offered = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok());
    if !offered
        .unwrap_or_default()
        .split(',')
        .any(|protocol| protocol.trim() == PROTOCOL)
    {
        return Err(Failure::bad_request(format!(
            "the subprotocol must be {PROTOCOL}"
        )));
    }
    tokio::spawn(async move {
        // A client that leaves early is no error of the server.
        if let Ok(upgraded) = on_upgrade.await {
            let _closed = forward(upgraded, netns, port).await;
        }
    });
    let accept = derive_accept_key(headers[SEC_WEBSOCKET_KEY].as_bytes());
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Body::empty())
        .map_err(|error| Failure::bad_request(error.to_string()))
}

async fn forward(upgraded: Upgraded, netns: PathBuf, port: u16) -> Result<()> {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let [low, high] = port.to_le_bytes();
    for channel in [0, 1] {
        socket
            .send(Message::binary(vec![channel, low, high]))
            .await?;
    }
    match connect(netns, port).await {
        Ok(stream) => copy(&mut socket, stream).await?,
        Err(error) => {
            let text = format!("failed to connect to localhost:{port}: {error:#}");
            let frame = [&[1], text.as_bytes()].concat();
            socket.send(Message::binary(frame)).await?;
        }
    }
    socket.close(None).await?;
    // With unread data, the kernel would reset the connection, and what was sent would be lost.
    while let Some(message) = socket.next().await {
        drop(message?);
    }
    Ok(())
}

async fn connect(netns: PathBuf, port: u16) -> Result<TcpStream> {
    let connect = move || {
        let to = (Ipv4Addr::LOCALHOST, port);
        Netns::enter_at(&netns, || Ok(std::net::TcpStream::connect(to)?))
    };
    let stream = tokio::task::spawn_blocking(connect).await??;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// Copies data in both directions until one ends.
async fn copy(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    mut stream: TcpStream,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        tokio::select! {
            read = stream.read(&mut chunk) => match read? {
                0 => return Ok(()),
                length => {
                    let frame = [&[0], &chunk[..length]].concat();
                    socket.send(Message::binary(frame)).await?;
                }
            },
            message = socket.next() => match message.transpose()? {
                Some(Message::Binary(bytes)) if bytes.first() == Some(&0) => {
                    stream.write_all(&bytes[1..]).await?;
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}
