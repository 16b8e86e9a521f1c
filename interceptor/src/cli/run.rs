//! `interceptor run`

use std::{convert::Infallible, future};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::attach::{PodArgs, print_limits};
use crate::{
    bpf::{log, pins::Pins},
    cgroup::Hierarchy,
    dataplane::{Dataplane, attach::Attached, steps},
    netns::{
        Netns,
        changes::{Changes, WatchBackoff},
    },
    settings::IstioFlags,
    stdio::message,
};

/// Capture a pod's traffic while this command runs
///
/// Like attach, but in the foreground: SIGINT (Ctrl-C) and SIGTERM detach. The command also updates
/// the copied addresses and routes when those of the pod change.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pod: PodArgs,

    /// Log every verdict to standard error. All pods share one log, which has one reader at a time
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
            let (netns, _) = self.pod.attach(&settings, self.log)?;
            let name = netns.path().display().to_string();
            message!("interceptor: {name} is captured; press Ctrl-C to detach");
            let log = async {
                if self.log {
                    log::print(&Pins::new()).await
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
