//! The plugin's side of the protocol.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::{Envelope, MAX_MESSAGE_LENGTH, Request, Response};

/// Why there is no response.
#[derive(Debug, Error)]
pub enum CallError {
    /// No process listens.
    #[error("no agent listens at {}: {error}", path.display())]
    Absent {
        /// The agent's socket.
        path: PathBuf,
        /// The error of the connection.
        error: io::Error,
    },
    /// The timeout has expired.
    #[error("the agent at {} did not respond within {} s", path.display(), wait.as_secs_f32())]
    Silent {
        /// The agent's socket.
        path: PathBuf,
        /// The timeout.
        wait: Duration,
    },
    /// Most likely the agent has exited.
    #[error("the agent at {} closed the connection: {error}", path.display())]
    HungUp {
        /// The agent's socket.
        path: PathBuf,
        /// The error of the read or write.
        error: io::Error,
    },
    /// The response cannot be parsed.
    #[error("invalid response from the agent at {}: {error}", path.display())]
    Garbled {
        /// The agent's socket.
        path: PathBuf,
        /// The parser's error.
        error: serde_json::Error,
    },
}

/// Sends a request to the agent at `path`. Fails after `wait`.
pub fn call(path: &Path, request: Request, wait: Duration) -> Result<Response, CallError> {
    let deadline = Instant::now() + wait;
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::Silent {
            path: path.to_owned(),
            wait,
        },
        _ => CallError::HungUp {
            path: path.to_owned(),
            error,
        },
    };
    let mut stream = connect(path, wait).map_err(|error| match error.kind() {
        // A full backlog: the agent listens, but does not accept.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => failed(error),
        _ => CallError::Absent {
            path: path.to_owned(),
            error,
        },
    })?;
    let line = exchange(&mut stream, &Envelope::new(request, wait), deadline).map_err(failed)?;
    serde_json::from_slice(&line).map_err(|error| CallError::Garbled {
        path: path.to_owned(),
        error,
    })
}

/// Connects within `wait`: `connect(2)` to a Unix socket waits while the backlog is full, up to the
/// socket's send timeout.
fn connect(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(wait))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

fn exchange(
    stream: &mut UnixStream,
    envelope: &Envelope,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(envelope)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&line)?;
    read_line(stream, deadline)
}

fn read_line(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while line.len() < MAX_MESSAGE_LENGTH {
        // The socket's timeout applies to one call only, and a response may arrive in pieces.
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut buffer)?;
        let read = &buffer[..count];
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&read[..end]);
            return Ok(line);
        }
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(read);
    }
    let error = format!("a response of more than {MAX_MESSAGE_LENGTH} bytes");
    Err(io::Error::new(ErrorKind::InvalidData, error))
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        // Zero would mean no timeout.
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
