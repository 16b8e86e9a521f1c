//! `interceptor exec`: a command and its proxy in a sandbox, captured like a pod, without Kubernetes.
//!
//! ```text
//!  interceptor exec                      the sandbox: a network namespace and a cgroup
//!    ├─ pasta                       ───► eth0
//!    ├─ exec-inside ──execve──►          the proxy, as user 1337, on 15001 and 15006
//!    ├─ exec-inside ──execve──►          the command
//!    └─ exec-cleanup                     (outside) removes the sandbox when `exec` has exited
//! ```
//!
//! [`sandbox`] makes the namespace and the cgroup, [`outside`] and
//! [`isolated`] its network, [`inside`] starts a program in it, [`proxy`] waits for listeners, and
//! [`cleanup`] ends everything, however `exec` exits.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    cleanup::Cleanup,
    inside::Program,
    proxy::Proxy,
    sandbox::{Place, Sandbox},
    user::RunAs,
};
use crate::{
    dataplane::Dataplane,
    netns::{Netns, NetnsSpec},
    settings::Settings,
    stdio::message,
};

pub(crate) mod cleanup;
pub(crate) mod inside;
mod isolated;
mod outside;
mod proxy;
pub(crate) mod resolv_conf;
mod sandbox;
pub(crate) mod user;

/// What to run, and how.
pub(crate) struct Plan {
    pub settings: Settings,
    pub network: Network,
    pub proxy: Option<ProxyPlan>,
    /// How long the proxy may take until it listens.
    pub proxy_timeout: Duration,
    /// What the programs have in place of `/etc/resolv.conf`, if anything.
    pub resolv_conf: Option<PathBuf>,
    pub user: RunAs,
    pub command: Vec<OsString>,
}

/// The network of the sandbox.
pub(crate) enum Network {
    /// A network namespace that exists.
    Existing(NetnsSpec),
    /// A new one, which is connected to the outside. These TCP ports of the host lead to the same ports in
    /// it.
    Outside { published: Vec<u16> },
    /// A new one that leads nowhere.
    Isolated,
}

/// The proxy to start.
pub(crate) struct ProxyPlan {
    /// For `/bin/sh`.
    pub command: OsString,
    /// The file for its output; otherwise standard error.
    pub log: Option<PathBuf>,
}

/// Runs the command. Returns its exit code; 128 and the signal's number if a signal has killed it.
///
/// `attach` attaches the sandbox's network namespace.
pub(crate) fn run(plan: &Plan, attach: impl FnOnce(&Sandbox) -> Result<()>) -> Result<u8> {
    let place = Place::new(&plan.network)?;
    if let Network::Existing(netns) = &plan.network {
        ensure_not_attached(&Netns::open(netns)?)?;
    }
    // Before anything is made. Dropped at the end, which removes the sandbox.
    let _cleanup = Cleanup::start(&place, plan.resolv_conf.as_deref())?;
    let sandbox = place.make()?;
    match &plan.network {
        Network::Existing(_) => {}
        Network::Outside { published } => outside::connect(&sandbox, published)?,
        Network::Isolated => isolated::make(&sandbox)?,
    }
    attach(&sandbox)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        // From here on, a signal ends the command instead of this process.
        let mut signals = Signals::watch()?;
        let mut proxy = Proxy::start(plan, &sandbox)?;
        tokio::select! {
            result = proxy.until_ready(&sandbox.netns) => result?,
            signal = signals.next() => return Ok(code_of_signal(signal)),
        }
        let program = Program {
            command: &plan.command,
            user: &plan.user,
            resolv_conf: plan.resolv_conf.as_deref(),
        };
        let command = program.start(&sandbox, inside::Output::Inherited)?;
        wait(command, &mut signals, &mut proxy).await
    })
}

/// Another capture would be replaced, and would end with the command.
fn ensure_not_attached(netns: &Netns) -> Result<()> {
    netns.check_not_hosts()?;
    ensure!(
        !Dataplane::new().is_attached(netns)?,
        "--netns {}: it is captured already: run the command there with `nsenter`, or detach it first",
        netns.path().display()
    );
    Ok(())
}

/// Waits for the command, and passes signals on to it.
async fn wait(mut command: Child, signals: &mut Signals, proxy: &mut Proxy) -> Result<u8> {
    let id = Pid::from_raw(i32::try_from(command.id())?);
    let mut exited = tokio::task::spawn_blocking(move || command.wait());
    loop {
        tokio::select! {
            status = &mut exited => return Ok(code(status.context("cannot wait")??)),
            signal = signals.next() => {
                // Ctrl-C reaches the command itself: it is in the terminal's foreground group.
                if signal != Signal::SIGINT {
                    // It may have exited just now.
                    let _gone = kill(id, signal);
                }
            }
            status = proxy.exited() => {
                message!("interceptor: the proxy has exited ({status}): connections are refused");
            }
        }
    }
}

/// As a shell reports it.
fn code(status: ExitStatus) -> u8 {
    let killed = || status.signal().map_or(FAILED.into(), |signal| 128 + signal);
    u8::try_from(status.code().unwrap_or_else(killed)).unwrap_or(FAILED)
}

const fn code_of_signal(signal: Signal) -> u8 {
    128 + signal as u8
}

/// Exit code if the command was not started, as of `env(1)`.
pub(crate) const FAILED: u8 = 125;

/// The signals by which users and supervisors end a command.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
