//! `interceptor istio-iptables`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::{
    attach::{self, CgroupArgs, print_notes},
    detach, dry_run,
    output::Format,
};
use crate::{
    dataplane::Dataplane,
    host,
    netns::{Netns, NetnsSpec, addresses, netlink},
    settings::{
        IstioFlags, ResolvConf, Settings,
        control::{Control, ControlFlags, Task},
    },
    stdio::message,
};

/// Exit code if capture could not be verified, as of istio-iptables.
const NOT_VERIFIED: u8 = 126;

/// Replace istio-iptables: same arguments and environment, for the network namespace of this process
///
/// With the privileges to load BPF programs, it attaches. With those of istio-init (NET_ADMIN,
/// NET_RAW), it waits until the node agent has captured the pod, at most for --probe-timeout, and
/// verifies that by a connection. A binary named istio-iptables runs this command, as does
/// `pilot-agent istio-iptables`.
#[expect(clippy::doc_markdown, reason = "this is the text of --help")]
#[derive(Args)]
#[command(
    // In istio-iptables, the last of several values takes effect.
    args_override_self = true,
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong command line, 126 validation failed: the pod is not captured."
)]
pub(super) struct IstioIptables {
    #[command(flatten)]
    cgroup: CgroupArgs,

    #[command(flatten)]
    control: ControlFlags,

    #[command(flatten)]
    settings: IstioFlags,
}

impl IstioIptables {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let control = Control::from_flags(&self.control)?;
        let resolv_conf = ResolvConf::File("/etc/resolv.conf".into());
        let parsed = Settings::from_flags(&self.settings, Some(&resolv_conf))?;
        print_notes(&parsed.notes);
        let settings = &parsed.settings;
        match control.task {
            Task::Print => dry_run::print(settings, Format::Text).map(|()| ExitCode::SUCCESS),
            Task::CleanUp => clean_up().map(|()| ExitCode::SUCCESS),
            Task::Apply { validate } => self.apply(settings, control, validate),
            Task::Validate => verify(settings, control),
            Task::Nothing => {
                message!(
                    "interceptor: nothing to do: --skip-rule-apply is set, and --run-validation is not"
                );
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn apply(&self, settings: &Settings, control: Control, validate: bool) -> Result<ExitCode> {
        let context = match self.cgroup.open() {
            Ok(context) => context,
            Err(error) => {
                message!(
                    "interceptor: this process cannot attach the pod; waiting for the node agent to \
                     capture it: {error:#}"
                );
                return verify(settings, control);
            }
        };
        let netns = own_netns()?;
        let attached = context.attach(&netns, settings)?;
        attach::report(netns.path(), attached);
        if validate {
            return verify(settings, control);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The path is the same in every process, so that a second attach with the same settings changes nothing.
fn own_netns() -> Result<Netns> {
    Netns::open(&NetnsSpec::File("/proc/self/ns/net".into()))
}

fn clean_up() -> Result<()> {
    host::check_root()?;
    host::ensure_bpffs()?;
    let netns = own_netns()?;
    detach::report(netns.path(), Dataplane::new().detach(&netns)?);
    Ok(())
}

/// Verifies that the pod is captured, and returns the exit code.
fn verify(settings: &Settings, control: Control) -> Result<ExitCode> {
    let addresses = netlink::run(async |handle| addresses::list(&handle).await)?;
    let local = addresses::first(&addresses)?;
    match control.validation.wait(settings, local) {
        Ok(()) => {
            message!("interceptor: the pod is captured: verified by a connection");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            message!("interceptor: could not verify that the pod is captured: {error:#}");
            Ok(ExitCode::from(NOT_VERIFIED))
        }
    }
}

/// The command of older Istio releases that removes the rules.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(super) struct IstioCleanIptables {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<String>,
}

/// Fails, with the replacement.
pub(super) fn refuse_clean() -> Result<ExitCode> {
    bail!(
        "istio-clean-iptables is no longer part of Istio (since 1.25): use `istio-iptables \
         --cleanup-only`, or `interceptor detach`"
    )
}
