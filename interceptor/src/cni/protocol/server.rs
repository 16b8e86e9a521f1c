//! The agent's side of the protocol.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};
use serde::Deserialize;
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    AddRequest, DelRequest, Envelope, MAX_MESSAGE_LENGTH, PROTOCOL, PodResult, Request, Response,
};

/// Limit for reading a request and for sending a response.
const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// How much earlier than the plugin the agent times out, so that its response still arrives.
const RESPONSE_MARGIN: Duration = Duration::from_millis(500);

/// The longest timeout that a plugin can request: runtimes time out after two or four minutes.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_mins(4);

/// Requests that are served concurrently; further ones wait.
const MAX_CONCURRENT_REQUESTS: usize = 256;

/// Handles the plugin's requests.
///
/// One task handles all requests: blocking work must run on another thread. When the plugin times
/// out, the future of its request is dropped.
pub trait Handler {
    /// Captures the pod, if it is to be captured. Waits for a pod that is not known yet.
    fn add(&self, request: AddRequest) -> impl Future<Output = PodResult>;

    /// Checks that the pod is captured.
    fn check(&self, request: AddRequest) -> impl Future<Output = PodResult>;

    /// A sandbox is being deleted. May be called repeatedly, and for unknown sandboxes.
    fn del(&self, request: DelRequest) -> impl Future<Output = ()>;

    /// Sandboxes may have been deleted without a DEL.
    fn gc(&self) -> impl Future<Output = ()>;
}

/// Why the agent cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another agent is running.
    #[error(
        "another agent already listens at {}: a node needs one agent; stop the other one, or set \
         --socket to a different path",
        .0.display()
    )]
    Taken(PathBuf),
    /// A file operation failed.
    #[error("cannot listen at {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// The agent's socket, locked against other agents.
pub struct Listener {
    socket: UnixListener,
    _lock: Flock<File>,
}

impl Listener {
    /// Listens at `path`, and replaces the socket of an agent that has exited. Must be called in a
    /// tokio runtime.
    ///
    /// The lock file shows whether an agent is running: the kernel releases its lock with the process,
    /// while a socket's file remains. Fails at once if another agent is running.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |error: io::Error| BindError::Io {
            path: path.to_owned(),
            error,
        };
        let lock = lock(path).map_err(failed)?;
        let lock = lock.ok_or_else(|| BindError::Taken(path.to_owned()))?;
        let socket = listen(path).map_err(failed)?;
        Ok(Self {
            socket,
            _lock: lock,
        })
    }
}

/// The agent's socket for observers, beside the one at `path`.
pub(crate) fn observers_socket(path: &Path) -> PathBuf {
    path.with_file_name("observe.sock")
}

/// Removes the files that an exited agent left at `path`, and the directory if it is empty. Does
/// nothing while an agent is running.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    let lock_file = beside(path, "lock");
    if path.exists() || lock_file.exists() {
        let Some(_lock) = lock(path)? else {
            return Ok(());
        };
        for file in [path, &observers_socket(path), &lock_file] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    if let Some(dir) = path.parent().filter(|dir| dir.ends_with("interceptor")) {
        // Fails in the agent's container, where it is a mount, and if it has other files.
        let _kept = fs::remove_dir(dir);
    }
    Ok(())
}

fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    if let Some(dir) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(dir)?;
    }
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).mode(0o600);
    let file = file.open(beside(path, "lock"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Creates a socket under another name, makes it accessible to root only, and renames it to `path`.
/// The rename is atomic: a plugin finds the old or the new socket.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = beside(path, "new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(socket)
}

/// Serves the plugin's requests.
pub async fn serve(listener: Listener, handler: impl Handler) {
    let handler = &handler;
    let plugins = stream::unfold(&listener, |listener| async move {
        Some((accept(&listener.socket).await, listener))
    });
    let served = plugins.for_each_concurrent(MAX_CONCURRENT_REQUESTS, |plugin| async move {
        if let Err(error) = serve_one(plugin, handler).await {
            debug!("failed to send a response to the CNI plugin: {error}");
        }
    });
    served.await;
}

async fn accept(socket: &UnixListener) -> UnixStream {
    loop {
        match socket.accept().await {
            Ok((plugin, _)) => return plugin,
            // Most likely too many open files, some of which will be closed.
            Err(error) => warn!("cannot accept a connection from the CNI plugin: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn serve_one(mut plugin: UnixStream, handler: &impl Handler) -> io::Result<()> {
    let uid = plugin.peer_cred()?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        warn!("rejected CNI request from non-root UID {uid}");
        return Ok(());
    }
    let line = timeout(IO_TIMEOUT, read_line(&mut plugin)).await??;
    if line.is_empty() {
        // A probe that only connects.
        return Ok(());
    }
    let response = match parse(&line) {
        Ok(envelope) => respond(envelope, handler).await,
        Err(reason) => Response::Unknown { reason },
    };
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    timeout(IO_TIMEOUT, plugin.write_all(&line)).await?
}

async fn read_line(plugin: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(plugin).take(MAX_MESSAGE_LENGTH as u64);
    reader.read_until(b'\n', &mut line).await?;
    Ok(line)
}

/// The fields that requests of all releases have.
#[derive(Deserialize)]
struct CommonFields {
    protocol: u32,
    #[serde(default)]
    release: String,
    verb: String,
}

pub(super) fn parse(line: &[u8]) -> Result<Envelope, String> {
    let ours = env!("CARGO_PKG_VERSION");
    let CommonFields {
        protocol,
        release,
        verb,
    } = serde_json::from_slice(line).map_err(|error| {
        format!("the agent (release {ours}) received an invalid request: {error}")
    })?;
    if protocol != PROTOCOL {
        return Err(format!(
            "protocol mismatch: the agent (release {ours}) uses version {PROTOCOL}, the CNI \
             plugin (release {release}) uses version {protocol}: let the agent install its own plugin"
        ));
    }
    serde_json::from_slice(line).map_err(|error| {
        format!(
            "the agent (release {ours}) does not understand the request {verb:?} of the CNI plugin \
             (release {release}): {error}"
        )
    })
}

async fn respond(envelope: Envelope, handler: &impl Handler) -> Response {
    let wait = Duration::from_millis(envelope.wait_ms).min(MAX_REQUEST_TIMEOUT);
    let wait = wait.saturating_sub(RESPONSE_MARGIN).max(wait / 2);
    let response = timeout(wait, handle(envelope.request, handler)).await;
    response.unwrap_or_else(|_| Response::Failed {
        reason: format!(
            "the agent did not finish within {} s; the runtime will retry",
            wait.as_secs_f32()
        ),
    })
}

async fn handle(request: Request, handler: &impl Handler) -> Response {
    match request {
        Request::Add(request) => handler.add(request).await.into(),
        Request::Check(request) => handler.check(request).await.into(),
        Request::Del(request) => {
            handler.del(request).await;
            Response::Ack
        }
        Request::Gc => {
            handler.gc().await;
            Response::Ack
        }
        Request::Status => Response::Ack,
    }
}
