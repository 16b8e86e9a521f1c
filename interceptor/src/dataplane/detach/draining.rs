//! The first half of a detach: new connections pass, while those in their handshake still reach the
//! proxy, with their original destination.
//!
//! Without it, a detach could break a connection: its destination is already a stand-in, and no
//! program delivers it to the proxy any more; or the proxy has accepted it, queries the original
//! destination, gets ENOENT, and closes it.
//!
//! The machine-wide lock is not held in between. A lock on the pod's own pins marks a running detach;
//! the kernel releases it when the process exits, and the next sweep completes the detach.

use std::{
    fs::File,
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::NetnsCookie;
use nix::fcntl::{Flock, FlockArg};
use tracing::debug;

use super::super::{
    listeners,
    registry::{Existing, policy_of},
};
use crate::{
    bpf::{grace, maps::Maps, pins::Pins},
    netns::{
        Netns,
        tcp_activity::{self, Activity},
    },
};

/// A `connect(2)` whose destination was already replaced sends its SYN within this time.
const SYN_DELAY: Duration = Duration::from_millis(20);

/// How often connections in their handshake are checked again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a proxy may take from accepting a connection to querying its original destination.
const LOOKUP_GRACE: Duration = Duration::from_millis(200);

/// Connections that are not established by then are refused, as if the proxy accepted none.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A pod whose new connections pass.
pub(crate) struct Draining<'a> {
    netns: &'a Netns,
    /// The ports on which the proxy listens.
    ports: Vec<u16>,
    /// `None` if another detach of this pod is running as well.
    _lock: Option<Flock<File>>,
}

impl<'a> Draining<'a> {
    /// Starts to drain `netns`. `None` if it is not attached. Requires the machine-wide lock.
    pub(crate) fn begin(pins: &Pins, maps: &mut Maps, netns: &'a Netns) -> Result<Option<Self>> {
        let Some(policy) = policy_of(maps, netns.cookie())? else {
            return Ok(None);
        };
        let existing = Existing::read(maps, netns.cookie())?;
        let ports = existing.map_or_else(Vec::new, |existing| {
            listeners::proxy_ports(&existing.record.settings)
        });
        let lock = try_lock(pins, netns.cookie()).context("cannot lock the pins of a pod")?;
        maps.policies
            .insert(netns.cookie(), policy.draining(), 0)
            .context("cannot replace the policy")?;
        Ok(Some(Self {
            netns,
            ports,
            _lock: lock,
        }))
    }

    fn activity(&self) -> Activity {
        let activity = self.netns.run(|| Ok(tcp_activity::activity(&self.ports)?));
        activity.unwrap_or_else(|error| {
            debug!("cannot list connections in handshake: {error:#}");
            Activity::Open
        })
    }
}

/// Waits until no captured connection is in its handshake, or for [`DRAIN_TIMEOUT`].
pub(crate) fn wait(pods: &[Draining<'_>]) {
    if pods.is_empty() {
        return;
    }
    // Programs that still run with the previous policies.
    grace::wait_for_running_programs();
    thread::sleep(SYN_DELAY);
    let end = Instant::now() + DRAIN_TIMEOUT;
    let mut busiest = Activity::None;
    for pod in pods {
        let mut activity = pod.activity();
        busiest = busiest.max(activity);
        while activity == Activity::Connecting && Instant::now() < end {
            thread::sleep(POLL_INTERVAL);
            activity = pod.activity();
        }
    }
    if busiest > Activity::None {
        thread::sleep(LOOKUP_GRACE);
    }
}

/// Whether a detach of the network namespace is running, in this process or in another.
pub(crate) fn is_running(pins: &Pins, netns: NetnsCookie) -> Result<bool> {
    match try_lock(pins, netns) {
        Ok(lock) => Ok(lock.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("cannot lock the pins of a pod"),
    }
}

/// `None` if another holds it.
fn try_lock(pins: &Pins, netns: NetnsCookie) -> io::Result<Option<Flock<File>>> {
    let dir = File::open(pins.netns(netns))?;
    match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}
