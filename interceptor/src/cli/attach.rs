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

/// Capture a pod's traffic until it is detached
///
/// The pod is captured when the command exits with 0, and stays captured without any process.
/// Attaching again with the same settings changes nothing. Other settings replace the previous ones
/// atomically, so that no connection is missed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  All traffic, as with a default Istio sidecar, in the pod of process 4711:
    interceptor attach --netns 4711 -b '*' -i '*' -d 15090,15021,15020
  Only outbound traffic to the cluster's services and pods:
    interceptor attach --netns /run/netns/pod -i 10.96.0.0/12,10.244.0.0/16")]
pub(super) struct Attach {
    #[command(flatten)]
    pod: PodArgs,

    /// Print the settings and the equivalent iptables rules, and change nothing; requires no
    /// privileges
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Output format of --dry-run
    #[arg(long, value_enum, default_value_t, requires = "dry_run")]
    output: Format,

    #[command(flatten)]
    settings: IstioFlags,
}

/// The pod, and the cgroup to attach to.
#[derive(Args)]
pub(super) struct PodArgs {
    /// The pod's network namespace: a path such as /run/netns/NAME or /proc/PID/ns/net, or the ID
    /// of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: NetnsSpec,

    #[command(flatten)]
    cgroup: CgroupArgs,

    /// The pod's resolv.conf with the DNS servers for --redirect-dns [default:
    /// /proc/PID/root/etc/resolv.conf of the process in --netns]
    #[arg(long, value_name = "PATH")]
    resolv_conf: Option<PathBuf>,
}

/// The warning for a pod that has Istio's rules.
const TWICE: &str = "Istio's iptables rules are also present, so connections are redirected twice: run \
                     `interceptor detach`, or remove the rules with Istio's `istio-iptables --cleanup-only`";

/// The cgroup to attach to.
#[derive(Args)]
pub(super) struct CgroupArgs {
    /// The cgroup to attach to: the pod's, or an ancestor [default: the root of the host's cgroup2
    /// hierarchy]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
}

impl Attach {
    pub(super) fn run(&self) -> Result<()> {
        let settings = self.pod.settings(&self.settings)?;
        if self.dry_run {
            return dry_run::print(&settings, self.output);
        }
        let (netns, attached) = self.pod.attach(&settings)?;
        report(netns.path(), attached);
        Ok(())
    }
}

/// Prints the result of an attach.
pub(super) fn report(netns: &Path, attached: Attached) {
    let message = match attached {
        Attached::New => "captured",
        Attached::Replaced => "captured (settings updated)",
        Attached::Refreshed => "already captured; addresses and routes refreshed",
        Attached::Unchanged => "already captured with the same settings",
    };
    message!("interceptor: {} is {message}", netns.display());
}

/// Prints why the copied routes of an attached pod are incomplete, if they are.
pub(super) fn print_limits(dataplane: &Dataplane, netns: &Netns) -> Result<()> {
    for limit in dataplane.limits(netns)? {
        message!("interceptor: {}: {limit}", netns.path().display());
    }
    Ok(())
}

/// Prints which settings have no effect.
pub(super) fn print_notes(notes: &[String]) {
    for note in notes {
        message!("interceptor: {note}");
    }
}

impl PodArgs {
    /// The pod's settings. Prints which of them have no effect.
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

    /// Attaches the pod.
    pub(super) fn attach(&self, settings: &Settings) -> Result<(Netns, Attached)> {
        let context = self.cgroup.open()?;
        let netns = Netns::open(&self.netns)?;
        let attached = context.attach(&netns, settings)?;
        Ok((netns, attached))
    }
}

impl CgroupArgs {
    /// Fails if this process cannot attach pods.
    pub(super) fn open(&self) -> Result<AttachContext> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let hierarchy = Hierarchy::find()?;
        let cgroup = Cgroup::open(&hierarchy, self.cgroup.as_deref())?;
        Ok(AttachContext {
            hierarchy,
            attach_points: AttachPoints::single(cgroup),
        })
    }
}

/// Prints which rules of other programs affect captured connections in another way than beside Istio's
/// rules.
fn warn_of_other_rules(netns: &Netns) {
    let name = netns.path().display();
    match netns.run(istio_rules::others) {
        Ok(warnings) => {
            for warning in warnings {
                message!("interceptor: warning: {name}: {warning}");
            }
        }
        Err(error) => {
            message!(
                "interceptor: {name}: cannot read the iptables rules of other programs: {error:#}"
            );
        }
    }
}

/// The cgroups to attach to, on a machine and with privileges that permit it.
pub(super) struct AttachContext {
    hierarchy: Hierarchy,
    attach_points: AttachPoints,
}

impl AttachContext {
    pub(super) fn attach(&self, netns: &Netns, settings: &Settings) -> Result<Attached> {
        netns.check_not_hosts()?;
        match netns.run(istio_rules::are_present) {
            Ok(false) => warn_of_other_rules(netns),
            Ok(true) => message!("interceptor: {}: {TWICE}", netns.path().display()),
            Err(error) => message!(
                "interceptor: cannot determine whether Istio's iptables rules are present: {error:#}"
            ),
        }
        let wanted = AttachSpec {
            netns,
            pod: None,
            attach_points: &self.attach_points,
            settings,
            scan_listeners: true,
        };
        let mut dataplane = Dataplane::new();
        let attached = dataplane.attach_checked(&wanted, &self.hierarchy)?;
        print_limits(&dataplane, netns)?;
        Ok(attached)
    }
}
