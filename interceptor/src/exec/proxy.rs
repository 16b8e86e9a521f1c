//! The proxy: starts it, and waits until it listens.

use std::{
    future,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_ebpf::DNS_CAPTURE_PORT;
use tokio::time::sleep;

use super::{
    Plan, ProxyPlan,
    inside::{Output, Program},
    sandbox::Sandbox,
    user::RunAs,
};
use crate::{
    netns::{Netns, listening},
    settings::{DnsCapture, PortSelection, PrefixSelection, Settings, owners::Ids},
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A proxy that was started here, or one that runs already.
pub(super) struct Proxy {
    started: Option<Child>,
    ports: Vec<u16>,
    timeout: Duration,
}

impl Proxy {
    /// Starts the proxy of the plan, if it has one, as the user whose connections are not captured.
    pub(super) fn start(plan: &Plan, sandbox: &Sandbox) -> Result<Self> {
        let start = |proxy: &ProxyPlan| {
            let command = ["/bin/sh".into(), "-c".into(), proxy.command.clone()];
            let first = |ids: &Ids| ids.as_slice().first().copied();
            let settings = &plan.settings;
            let user = first(&settings.proxy_uids)
                .zip(first(&settings.proxy_gids))
                .map(|(uid, gid)| RunAs::ids(uid, gid))
                .context("--proxy-command: --proxy-uid and --proxy-gid must name its user")?;
            let program = Program {
                command: &command,
                user: &user,
                resolv_conf: plan.resolv_conf.as_deref(),
            };
            program.start(sandbox, Output::Log(proxy.log.as_deref()))
        };
        Ok(Self {
            started: plan.proxy.as_ref().map(start).transpose()?,
            ports: ports(&plan.settings),
            timeout: plan.proxy_timeout,
        })
    }

    /// Waits until it listens on every port that connections are redirected to.
    pub(super) async fn until_ready(&mut self, netns: &Netns) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(status) = self.status()? {
                bail!("the proxy exited before it listened: {status}");
            }
            let listening = netns.run(listening::tcp_ports)?;
            let missing = self.ports.iter().filter(|port| !listening.contains(port));
            let missing: Vec<_> = missing.map(ToString::to_string).collect();
            if missing.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the proxy does not listen on {} after {} s: change its configuration or the settings \
                 (-p, -z; -b '' captures no inbound connection), or wait longer (--proxy-timeout)",
                missing.join(" and "),
                self.timeout.as_secs_f32()
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until a started proxy exits, and returns its status once.
    pub(super) async fn exited(&mut self) -> ExitStatus {
        loop {
            match self.status() {
                Ok(Some(status)) => {
                    self.started = None;
                    return status;
                }
                Ok(None) if self.started.is_some() => sleep(POLL_INTERVAL).await,
                _ => future::pending().await,
            }
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.started.as_mut().map(Child::try_wait).transpose()?;
        Ok(status.flatten())
    }
}

/// The ports that these settings redirect to.
fn ports(settings: &Settings) -> Vec<u16> {
    let outbound = settings.outbound_prefixes != PrefixSelection::Listed(Vec::new())
        || !settings.outbound_ports.is_empty();
    let inbound = settings.inbound_ports != PortSelection::None;
    let dns = settings.dns != DnsCapture::Off;
    [
        (outbound, settings.outbound_port),
        (inbound, settings.inbound_port),
        (dns, DNS_CAPTURE_PORT),
    ]
    .into_iter()
    .filter_map(|(is_needed, port)| is_needed.then_some(port))
    .collect()
}
