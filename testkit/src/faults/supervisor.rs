//! Decides about the calls of processes.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use tempfile::TempDir;

use super::{
    call::Call,
    fault::{Failure, Fault, Recorded},
    notification::Notification,
    seccomp,
};
use crate::command::{bounded, own_binary};

/// The calls so far, and the one that fails.
#[derive(Default)]
struct State {
    calls: Vec<Call>,
    counts: HashMap<Call, usize>,
    fault: Option<Fault>,
    has_failed: bool,
    /// Why the supervisor itself has failed. The calls of its process then fail with ENOSYS.
    error: Option<String>,
}

impl State {
    /// Counts the call, and returns how it fails.
    fn decide(&mut self, call: Call) -> Option<Failure> {
        let index = self.counts.entry(call.clone()).or_default();
        let fails = self.fault.as_ref();
        let failure = fails
            .filter(|fault| fault.call == call && fault.index == *index && !self.has_failed)
            .map(|fault| fault.failure);
        *index += 1;
        self.has_failed |= failure.is_some();
        self.calls.push(call);
        failure
    }
}

/// Decides about the calls of the processes that are started by its commands.
pub struct Supervisor {
    state: Arc<Mutex<State>>,
    socket: PathBuf,
    _dir: TempDir,
}

impl Supervisor {
    /// Starts one, as a thread of this process.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("supervisor");
        let listener = UnixListener::bind(&socket)?;
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for launcher in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(launcher, &shared));
            }
        });
        Ok(Self {
            state,
            socket,
            _dir: dir,
        })
    }

    /// `program` under this supervisor, with a time limit.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = bounded(own_binary("interceptor-test-faults")?);
        command.arg(&self.socket).arg(program);
        // Of cargo: the loader would search the directories in it.
        command.env_remove("LD_LIBRARY_PATH");
        Ok(command)
    }

    /// A script that runs `program` under this supervisor.
    pub fn script(&self, program: &Path) -> Result<PathBuf> {
        let path = self.socket.with_file_name("script");
        let launcher = own_binary("interceptor-test-faults")?;
        let words = [&launcher, &self.socket, program].map(|path| path.display().to_string());
        fs::write(
            &path,
            format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")),
        )?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// From now on, calls are counted from zero, and this one fails.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut state = lock(&self.state);
        *state = State {
            fault,
            error: state.error.take(),
            ..State::default()
        };
    }

    /// Whether the call of the last [`Self::arm`] has failed.
    ///
    /// # Panics
    ///
    /// If the supervisor itself has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.checked().has_failed
    }

    /// The calls since the last [`Self::arm`].
    ///
    /// # Panics
    ///
    /// If the supervisor itself has failed.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        Recorded(self.checked().calls.clone())
    }

    fn checked(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        assert!(state.error.is_none(), "a supervisor: {:?}", state.error);
        state
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides about the calls of one process until it exits. If this fails, the process is not blocked:
/// without a listener, its calls fail with ENOSYS.
fn serve(launcher: UnixStream, state: &Mutex<State>) {
    if let Err(error) = try_serve(launcher, state) {
        lock(state).error = Some(format!("{error:#}"));
    }
}

fn try_serve(mut launcher: UnixStream, state: &Mutex<State>) -> Result<()> {
    let process = getsockopt(&launcher, PeerCredentials)?.pid();
    let mut number = RawFd::default().to_ne_bytes();
    launcher.read_exact(&mut number)?;
    let listener = seccomp::descriptor_of(process, RawFd::from_ne_bytes(number))?;
    launcher.write_all(b".")?;
    while wait(&listener)? {
        let Some(call) = seccomp::receive(&listener)? else {
            continue;
        };
        let errno = decide(process, call, state)?;
        seccomp::respond(&listener, call.id, errno)?;
    }
    Ok(())
}

/// Whether there is a call. `false` after the exit of the process.
fn wait(listener: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::NONE)?;
    let events = polled[0].revents().unwrap_or(PollFlags::POLLHUP);
    Ok(events.contains(PollFlags::POLLIN))
}

/// The errno that the call fails with.
fn decide(
    process: i32,
    call: libc::seccomp_notif,
    state: &Mutex<State>,
) -> io::Result<Option<i32>> {
    let Some(notification) = Notification::new(process, call) else {
        return Ok(None);
    };
    let Some(call) = notification.call() else {
        return Ok(None);
    };
    match lock(state).decide(call) {
        Some(Failure::Errno) => Ok(Some(notification.errno())),
        Some(Failure::Response) => notification.invalidate().map(|()| None),
        None => Ok(None),
    }
}
