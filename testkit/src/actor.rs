//! The test's side of an actor.

pub mod process;
pub mod protocol;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    actor::{
        process::{ActorConfig, Namespace},
        protocol::{Family, Handle, Protocol, Reply, Request},
    },
    command::own_binary,
    spawn::spawn,
};

/// Time limit of one request: longer than any wait of the actor itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A process in a given network namespace and cgroup, which makes system calls for the test. Killed
/// when dropped.
pub struct Actor {
    name: String,
    /// `None` if another process has started it.
    child: Option<Child>,
    pipes: Mutex<Pipes>,
}

struct Pipes {
    requests: File,
    replies: BufReader<File>,
}

/// The user and group that an actor runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl User {
    /// The user with these numbers.
    #[must_use]
    pub const fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }
}

impl Actor {
    /// Starts an actor in `netns` and, if one is given, in `cgroup`.
    pub fn start(name: &str, user: User, netns: Namespace, cgroup: Option<&Path>) -> Result<Self> {
        let config = ActorConfig {
            name: name.to_owned(),
            cgroup: cgroup.map(PathBuf::from),
            netns,
            uid: user.uid,
            gid: user.gid,
            parent: std::process::id().cast_signed(),
        };
        let mut command = Command::new(own_binary("interceptor-test-actor")?);
        command
            .arg(serde_json::to_string(&config)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn(command)?;
        let requests = OwnedFd::from(child.stdin.take().context("stdin")?);
        let replies = OwnedFd::from(child.stdout.take().context("stdout")?);
        let actor = Self::with(name, Some(child), requests.into(), replies.into());
        actor.receive().with_context(|| format!("{config:?}"))?;
        Ok(actor)
    }

    /// Connects to the actor at the other ends of these pipes, which exits with them.
    pub fn beyond_pipes(name: &str, requests: File, replies: File) -> Result<Self> {
        let actor = Self::with(name, None, requests, replies);
        actor.receive().context(actor.name.clone())?;
        Ok(actor)
    }

    fn with(name: &str, child: Option<Child>, requests: File, replies: File) -> Self {
        let pipes = Mutex::new(Pipes {
            requests,
            replies: BufReader::new(replies),
        });
        let name = name.to_owned();
        Self { name, child, pipes }
    }

    /// Its process ID; 0 if it is not a child of the test.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a request and waits for the reply. An errno is a [`Reply::Error`]; an `Err` is a
    /// failure of the harness itself.
    pub fn call(&self, request: &Request) -> Result<Reply> {
        let context = || format!("{}: {request:?}", self.name);
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.lock()
            .requests
            .write_all(line.as_bytes())
            .with_context(context)?;
        self.receive().with_context(context)
    }

    /// The same for a request that must succeed.
    pub fn must(&self, request: &Request) -> Result<Reply> {
        match self.call(request)? {
            Reply::Error(errno) => bail!("{}: {request:?}: {errno}", self.name),
            reply => Ok(reply),
        }
    }

    /// Opens a socket.
    pub fn socket(&self, family: Family, protocol: Protocol) -> Result<Handle> {
        handle(self.must(&Request::Socket { family, protocol })?)
    }

    /// Connects to an identity server and reads its introduction.
    pub fn connect(&self, address: SocketAddr) -> Result<Handle> {
        let socket = self.socket(Family::of(address), Protocol::Tcp)?;
        self.must(&Request::Connect { socket, address })?;
        self.must(&Request::ReceiveLine { socket })?;
        Ok(socket)
    }

    /// Accepts a connection.
    pub fn accept(&self, socket: Handle) -> Result<Handle> {
        handle(self.must(&Request::Accept { socket })?)
    }

    /// Opens a TCP socket that listens on `address`.
    pub fn listen(&self, address: SocketAddr) -> Result<Handle> {
        let socket = self.socket(Family::of(address), Protocol::Tcp)?;
        self.must(&Request::Bind { socket, address })?;
        self.must(&Request::Listen { socket })?;
        Ok(socket)
    }

    fn receive(&self) -> Result<Reply> {
        let replies = &mut self.lock().replies;
        let mut fds = [PollFd::new(replies.get_ref().as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(REQUEST_TIMEOUT)?)?;
        ensure!(ready > 0, "no reply within {REQUEST_TIMEOUT:?}");
        let mut line = String::new();
        replies.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the actor has exited");
        Ok(serde_json::from_str(&line)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // Both fail only for a child that has been waited for.
        let _killed = child.kill();
        let _status = child.wait();
    }
}

/// The socket in a reply.
pub fn handle(reply: Reply) -> Result<Handle> {
    match reply {
        Reply::Socket(handle) => Ok(handle),
        reply => bail!("not a socket: {reply:?}"),
    }
}
