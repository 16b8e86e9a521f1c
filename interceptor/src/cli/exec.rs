//! `interceptor exec`, and the hidden commands of the processes that it starts

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use super::attach::{CgroupArgs, print_notes};
use crate::{
    arguments::number,
    exec::{
        self, FAILED, Network, Plan, ProxyPlan,
        cleanup::Remains,
        inside::Entry,
        resolv_conf::{RESOLV_CONF, ResolvConf},
        user::RunAs,
    },
    netns::NetnsSpec,
    settings::{self, IstioFlags, Settings},
    stdio::message,
};

/// What istio-iptables' variables have if neither they nor flags are set: everything is captured, as by
/// Istio's default.
const DEFAULTS: [(&str, &str); 2] = [("ISTIO_INBOUND_PORTS", "*"), ("ISTIO_SERVICE_CIDR", "*")];

/// Run a command behind a proxy, captured like a pod; requires no Kubernetes
///
/// Makes a network namespace and a cgroup, captures the namespace, starts the proxy in it, waits until
/// the proxy listens, and runs the command there. When the command exits, or this one does, in any way,
/// all processes of the sandbox are killed, and nothing is left.
///
/// Everything is captured by default (-b '*' -i '*').
#[derive(Args)]
#[command(after_help = "\
Examples:
  A client behind an Envoy with your configuration:
    sudo interceptor exec --proxy-command 'envoy -c envoy.yaml' -- curl -v http://example.org
  A server, which host and network reach on port 8080, through the proxy's inbound listener:
    sudo interceptor exec --publish 8080 --proxy-command 'envoy -c envoy.yaml' -- ./server
  Tests, with outbound connections captured only, and the proxy's log in a file:
    sudo interceptor exec -b '' --proxy-command ./proxy --proxy-log proxy.log -- npm test
  Where a proxy listens already:
    sudo interceptor exec --netns 4711 -- curl http://10.96.0.10

Exit code: that of the command, or 128 and the number of the signal that killed it; 127 if there is no
such command, 126 if it cannot be executed, 125 if the sandbox cannot be made, and 2 for a wrong command line")]
pub(super) struct Exec {
    /// Start this proxy, by /bin/sh, as the first UID of --proxy-uid and GID of --proxy-gid
    #[arg(long, value_name = "COMMAND", required_unless_present = "netns")]
    proxy_command: Option<OsString>,

    /// Append the proxy's output to this file [default: standard error]
    #[arg(long, value_name = "FILE", requires = "proxy_command")]
    proxy_log: Option<PathBuf>,

    /// How long the proxy may take until it listens on its ports
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = number(1..=3600_u32))]
    proxy_timeout: u32,

    /// Use this network namespace instead of a new one; without --proxy-command, a proxy listens in it.
    /// A path such as /run/netns/NAME or /proc/PID/ns/net, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID", conflicts_with_all = ["network", "publish"])]
    netns: Option<NetnsSpec>,

    /// What the new network namespace is connected to
    #[arg(long, value_enum, default_value_t)]
    network: Connection,

    /// Connect these TCP ports of the host to the same ports in the sandbox
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = number(1..=u16::MAX))]
    publish: Vec<u16>,

    /// Run the command as this user, by name or UID [default: the user who called sudo, else the current
    /// one]
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    #[command(flatten)]
    cgroup: CgroupArgs,

    #[command(flatten)]
    settings: IstioFlags,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Connection {
    /// What the host reaches, through pasta (package passt), with the host's addresses
    #[default]
    Outside,
    /// Nothing: captured connections reach the proxy, others get no reply
    None,
}

impl Exec {
    pub(super) fn run(&self) -> ExitCode {
        let code = self.execute().unwrap_or_else(|error| {
            message!("interceptor: {error:#}");
            FAILED
        });
        code.into()
    }

    fn execute(&self) -> Result<u8> {
        // First: it checks this process's privileges.
        let context = self.cgroup.open()?;
        let network = self.network()?;
        let own_file = match network {
            Network::Outside { .. } => ResolvConf::write_if_needed()?,
            Network::Existing(_) | Network::Isolated => None,
        };
        let resolv_conf = own_file.as_ref().map(|file| file.path().to_owned());
        let plan = Plan {
            settings: self.settings(resolv_conf.clone())?,
            network,
            proxy: self.proxy_command.clone().map(|command| ProxyPlan {
                command,
                log: self.proxy_log.clone(),
            }),
            proxy_timeout: Duration::from_secs(self.proxy_timeout.into()),
            resolv_conf,
            user: match &self.user {
                Some(name) => RunAs::named(name)?,
                None => RunAs::caller()?,
            },
            command: self.command.clone(),
        };
        exec::run(&plan, |sandbox| {
            context.attach(&sandbox.netns, &plan.settings).map(drop)
        })
    }

    fn network(&self) -> Result<Network> {
        Ok(match (&self.netns, self.network) {
            (Some(netns), _) => Network::Existing(netns.clone()),
            (None, Connection::Outside) => Network::Outside {
                published: self.publish.clone(),
            },
            (None, Connection::None) if self.publish.is_empty() => Network::Isolated,
            (None, Connection::None) => bail!(
                "--publish: no port of the host leads into --network none: remove one of the two"
            ),
        })
    }

    fn settings(&self, resolv_conf: Option<PathBuf>) -> Result<Settings> {
        let environment = |name: &str| {
            let default = DEFAULTS.iter().find(|(variable, _)| *variable == name);
            settings::environment(name).or_else(|| default.map(|(_, value)| (*value).to_owned()))
        };
        let resolv_conf = resolv_conf.unwrap_or_else(|| RESOLV_CONF.into());
        let resolv_conf = settings::ResolvConf::File(resolv_conf);
        let parsed = Settings::from_flags_and(&self.settings, &environment, Some(&resolv_conf))?;
        print_notes(&parsed.notes);
        Ok(parsed.settings)
    }
}

/// The process that becomes a program in the sandbox
#[derive(Args)]
pub(super) struct Inside {
    entry: String,
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl Inside {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let entry: Entry = serde_json::from_str(&self.entry).context("not called by exec")?;
        Ok(entry.become_program(&self.command).into())
    }
}

/// The process that removes the sandbox
#[derive(Args)]
pub(super) struct Cleanup {
    remains: String,
}

impl Cleanup {
    pub(super) fn run(&self) -> Result<()> {
        let remains: Remains = serde_json::from_str(&self.remains).context("not called by exec")?;
        remains.remove_after_input()
    }
}
