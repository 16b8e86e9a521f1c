//! `interceptor run`

use std::future;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::attach::Target;
use crate::{
    attachment,
    bpf::{log, pins::Pins},
    settings::IstioFlags,
};

/// Capture a pod's traffic for as long as this command runs
///
/// Like attach, but in the foreground: SIGINT (Ctrl-C) and SIGTERM detach.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    target: Target,

    /// Tell every verdict on standard error. The programs keep one log for all pods, which one
    /// reader at a time can follow
    #[arg(long)]
    log: bool,

    #[command(flatten)]
    settings: IstioFlags,
}

impl Run {
    pub(super) fn run(&self) -> Result<()> {
        let settings = self.target.settings(&self.settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            // From here on a signal waits until the pod is attached, and then detaches it.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let (netns, _) = self.target.attach(&settings, self.log)?;
            let name = netns.path().display().to_string();
            eprintln!("interceptor: {name} is captured; Ctrl-C detaches it");
            let log = async {
                if self.log {
                    log::print(&Pins::new(), netns.cookie()).await
                } else {
                    future::pending().await
                }
            };
            let followed = tokio::select! {
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
                result = log => result,
            };
            attachment::detach(&netns)?;
            followed?;
            eprintln!("interceptor: {name} is no longer captured");
            Ok(())
        })
    }
}
