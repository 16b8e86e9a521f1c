//! `interceptor run`

use std::{convert::Infallible, future, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::attach::{PodArgs, print_limits};
use crate::{
    cgroup::Hierarchy,
    dataplane::{Dataplane, attach::Attached, steps},
    netns::{
        Netns,
        changes::{Changes, WatchBackoff},
    },
    observe::{
        format::{Style, TimeFormat},
        node::{NodeFlows, POLL_INTERVAL},
    },
    settings::IstioFlags,
    stdio::message,
};

/// Interval between attempts to log connections.
const LOG_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Capture a pod's traffic while this command runs
///
/// Like attach, but in the foreground: SIGINT (Ctrl-C) and SIGTERM detach. The command also updates
/// the copied addresses and routes when those of the pod change.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pod: PodArgs,

    /// Log each connection of the pod to standard error, as `interceptor observe` shows it
    #[arg(long)]
    log: bool,

    #[command(flatten)]
    settings: IstioFlags,
}

impl Run {
    pub(super) fn run(&self) -> Result<()> {
        let settings = self.pod.settings(&self.settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            // From here on a signal is pending until the pod is attached, and then detaches it.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let (netns, _) = self.pod.attach(&settings)?;
            let name = netns.path().display().to_string();
            message!("interceptor: {name} is captured; press Ctrl-C to detach");
            let log = async {
                if self.log {
                    log(&netns).await
                } else {
                    future::pending().await
                }
            };
            let result = tokio::select! {
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
                result = log => result,
                result = follow(&netns) => result,
            };
            Dataplane::new().detach(&netns)?;
            result?;
            message!("interceptor: {name} is no longer captured");
            Ok(())
        })
    }
}

/// Logs the pod's flows. Another observer, or an error, is no reason to detach the pod.
async fn log(netns: &Netns) -> Result<()> {
    #[expect(clippy::infinite_loop, reason = "until a signal ends the command")]
    loop {
        let Err(error) = log_flows(netns).await;
        message!("interceptor: cannot log connections; retrying: {error:#}");
        sleep(LOG_RETRY_INTERVAL).await;
    }
}

/// The same until it fails.
async fn log_flows(netns: &Netns) -> Result<Infallible> {
    const STYLE: Style = Style {
        time: TimeFormat::StampMilli,
        is_colored: false,
    };
    let mut flows = NodeFlows::open()?;
    loop {
        let own = flows.read()?.into_iter();
        for flow in own.filter(|flow| flow.pod.netns_cookie == netns.cookie()) {
            message!("{}", STYLE.compact(&flow).trim_end());
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Updates the pod's addresses and routes while it is attached.
async fn follow(netns: &Netns) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let mut dataplane = Dataplane::new();
    let mut backoff = WatchBackoff::default();
    #[expect(clippy::infinite_loop, reason = "until a signal ends the command")]
    loop {
        let start = Instant::now();
        let Err(error) = watch(&mut dataplane, netns, &hierarchy).await;
        // A flood of changes is no reason to detach the pod.
        let name = netns.path().display();
        message!("interceptor: {name}: cannot watch its network; retrying: {error:#}");
        sleep(backoff.after(start.elapsed())).await;
    }
}

/// The same until the watch fails.
async fn watch(
    dataplane: &mut Dataplane,
    netns: &Netns,
    hierarchy: &Hierarchy,
) -> Result<Infallible> {
    let name = netns.path().display();
    let mut changes = Changes::watch(netns)?;
    loop {
        // First, what has changed between the attach and the watch.
        let start = Instant::now();
        let took = match steps::refresh(dataplane, netns, hierarchy) {
            Ok((Some(attached), took)) => {
                if attached == Attached::Refreshed {
                    message!("interceptor: {name}: addresses or routes changed; refreshed");
                    print_limits(dataplane, netns)?;
                }
                took
            }
            // Another process has detached it: it stays detached.
            Ok((None, _)) => future::pending().await,
            Err(error) => {
                message!(
                    "interceptor: {name}: addresses or routes changed; cannot refresh them yet: \
                     {error:#}"
                );
                start.elapsed()
            }
        };
        changes.next(took).await?;
    }
}
