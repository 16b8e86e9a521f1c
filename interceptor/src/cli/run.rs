//! `interceptor run`

use std::{convert::Infallible, future};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::attach::{Target, print_limits};
use crate::{
    bpf::{log, pins::Pins},
    cgroup::Hierarchy,
    dataplane::{Dataplane, attach::Attached, steps},
    netns::{
        Netns,
        changes::{Changes, Pause},
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
    target: Target,

    /// Log every verdict to standard error. There is one log for all pods, with one reader at a time
    #[arg(long)]
    log: bool,

    #[command(flatten)]
    settings: IstioFlags,
}

impl Run {
    pub(super) fn run(&self) -> Result<()> {
        let settings = self.target.settings(&self.settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            // From here on a signal is pending until the pod is attached, and then detaches it.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let (netns, _) = self.target.attach(&settings, self.log)?;
            let name = netns.path().display().to_string();
            message!("interceptor: {name} is captured; press Ctrl-C to detach");
            let log = async {
                if self.log {
                    log::print(&Pins::new()).await
                } else {
                    future::pending().await
                }
            };
            let followed = tokio::select! {
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
                result = log => result,
                result = follow(&netns) => result,
            };
            Dataplane::new().detach(&netns)?;
            followed?;
            message!("interceptor: {name} is no longer captured");
            Ok(())
        })
    }
}

/// Follows the pod's addresses and routes for as long as it is attached.
async fn follow(netns: &Netns) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let mut dataplane = Dataplane::new();
    let mut pause = Pause::default();
    #[expect(clippy::infinite_loop, reason = "until a signal ends the command")]
    loop {
        let begun = Instant::now();
        let Err(error) = watch(&mut dataplane, netns, &hierarchy).await;
        // A flood of changes is no reason to detach the pod.
        let name = netns.path().display();
        message!("interceptor: {name}: cannot watch its network; retrying: {error:#}");
        sleep(pause.after(begun.elapsed())).await;
    }
}

/// Follows until the watch fails.
async fn watch(
    dataplane: &mut Dataplane,
    netns: &Netns,
    hierarchy: &Hierarchy,
) -> Result<Infallible> {
    let name = netns.path().display();
    let mut changes = Changes::watch(netns)?;
    loop {
        // First, what has changed between the attach and the watch.
        let begun = Instant::now();
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
                begun.elapsed()
            }
        };
        changes.next(took).await?;
    }
}
