//! `interceptor attach`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::{dry_run, output::Format};
use crate::{
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
    },
    host,
    netns::{Netns, NetnsSpec, istio_rules},
    settings::{IstioFlags, ResolvConf, Settings},
    stdio::message,
};

/// Capture a pod's traffic, until it is detached
///
/// In force when it exits 0, and stays so without any process. The same settings again change
/// nothing; other settings replace those in force in one step, in which no connection is missed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  Everything, as a default Istio sidecar has it, for the pod of process 4711:
    interceptor attach --netns 4711 -b '*' -i '*' -d 15090,15021,15020
  Outbound only, and only to the cluster:
    interceptor attach --netns /run/netns/pod -i 10.96.0.0/12,10.244.0.0/16")]
pub(super) struct Attach {
    #[command(flatten)]
    pub(super) target: Target,

    /// Print the settings and the iptables rules that they stand for, and change nothing; needs no
    /// privileges
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// How a dry run prints it
    #[arg(long, value_enum, default_value_t, requires = "dry_run")]
    output: Format,

    #[command(flatten)]
    pub(super) settings: IstioFlags,
}

/// The pod, and where its sockets are seen.
#[derive(Args)]
pub(super) struct Target {
    /// The pod's network namespace: a path such as /run/netns/NAME or /proc/PID/ns/net, or the ID
    /// of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: NetnsSpec,

    #[command(flatten)]
    place: Place,

    /// The pod's resolv.conf, which names the servers for --redirect-dns [default: that of the
    /// process that --netns names, /proc/PID/root/etc/resolv.conf]
    #[arg(long, value_name = "PATH")]
    resolv_conf: Option<PathBuf>,
}

/// What comes of attaching where Istio's rules are.
const TWICE: &str = "Istio's iptables rules are there too, and connections are captured twice: detach \
                     it, or take the rules away (with Istio's own `istio-iptables --cleanup-only`)";

/// Where a pod's sockets are seen.
#[derive(Args)]
pub(super) struct Place {
    /// The cgroup whose sockets are captured, the pod's or one above it [default: the root of the
    /// host's cgroup2 hierarchy]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
}

impl Attach {
    pub(super) fn run(&self) -> Result<()> {
        let settings = self.target.settings(&self.settings)?;
        if self.dry_run {
            return dry_run::print(&settings, self.output);
        }
        let (netns, attached) = self.target.attach(&settings, false)?;
        tell(netns.path(), attached);
        Ok(())
    }
}

/// Says what became of an attach.
pub(super) fn tell(netns: &Path, attached: Attached) {
    let message = match attached {
        Attached::New => "captured",
        Attached::Replaced => "captured, with other settings than before",
        Attached::Refreshed => "captured already; its changed addresses and routes are followed",
        Attached::Unchanged => "captured already, with the same settings",
    };
    message!("interceptor: {} is {message}", netns.display());
}

/// Says what the copied routes of an attached pod cannot be relied on for.
pub(super) fn print_limits(dataplane: &Dataplane, netns: &Netns) -> Result<()> {
    for limit in dataplane.limits(netns)? {
        message!("interceptor: {}: {limit}", netns.path().display());
    }
    Ok(())
}

/// Tells what has no effect.
pub(super) fn print_notes(notes: &[String]) {
    for note in notes {
        message!("interceptor: {note}");
    }
}

impl Target {
    /// The pod's settings. What has no effect is told.
    pub(super) fn settings(&self, flags: &IstioFlags) -> Result<Settings> {
        let parsed = Settings::from_flags(flags, self.resolv_conf().as_ref())?;
        print_notes(&parsed.notes);
        Ok(parsed.settings)
    }

    fn resolv_conf(&self) -> Option<ResolvConf> {
        match &self.resolv_conf {
            Some(path) => Some(ResolvConf::File(path.clone())),
            None => self.netns.process().map(ResolvConf::OfProcess),
        }
    }

    /// Attaches the pod, with every verdict told if `log`.
    pub(super) fn attach(&self, settings: &Settings, log: bool) -> Result<(Netns, Attached)> {
        let ground = self.place.find()?;
        let netns = Netns::open(&self.netns)?;
        let attached = ground.attach(&netns, settings, log)?;
        Ok((netns, attached))
    }
}

impl Place {
    /// Fails if this process cannot attach anything.
    pub(super) fn find(&self) -> Result<Ground> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let hierarchy = Hierarchy::find()?;
        let cgroup = Cgroup::open(&hierarchy, self.cgroup.as_deref())?;
        let places = AttachPoints::single(cgroup);
        Ok(Ground { hierarchy, places })
    }
}

/// Says which rules of others do not act on captured connections as beside Istio's.
fn warn_of_others(netns: &Netns) {
    let name = netns.path().display();
    match netns.run(istio_rules::others) {
        Ok(warnings) => {
            for warning in warnings {
                message!("interceptor: warning: {name}: {warning}");
            }
        }
        Err(error) => {
            message!("interceptor: {name}: others' iptables rules are not known: {error:#}");
        }
    }
}

/// What an attach stands on: a machine and rights that allow it.
pub(super) struct Ground {
    hierarchy: Hierarchy,
    places: AttachPoints,
}

impl Ground {
    pub(super) fn attach(&self, netns: &Netns, settings: &Settings, log: bool) -> Result<Attached> {
        host::check_not_hosts(netns)?;
        match netns.run(istio_rules::are_here) {
            Ok(false) => warn_of_others(netns),
            Ok(true) => message!("interceptor: {}: {TWICE}", netns.path().display()),
            Err(error) => message!("interceptor: Istio's rules may be there too: {error:#}"),
        }
        let wanted = AttachSpec {
            netns,
            places: &self.places,
            settings,
            log,
            scan_listeners: true,
        };
        let mut dataplane = Dataplane::new();
        let attached = dataplane.attach_checked(&wanted, &self.hierarchy)?;
        print_limits(&dataplane, netns)?;
        Ok(attached)
    }
}
