//! `interceptor status`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::output::{Format, table};
use crate::{
    host,
    netns::NetnsSpec,
    settings::{ports::PortSelection, prefixes::PrefixSelection},
    status::{self, PodStatus},
};

/// Exit code for pods that are captured, but not as they should be.
const DEGRADED: u8 = 3;

/// Show what is captured, where it is attached, and with which settings
///
/// Exit code 3 says that something is wrong with a pod; the output says what.
#[derive(Args)]
pub(super) struct Status {
    /// Only this pod: a path to its network namespace, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: Option<NetnsSpec>,

    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let pods = status::read(self.netns.as_ref())?;
        match self.output {
            Format::Json => println!("{}", serde_json::to_string_pretty(&pods)?),
            Format::Text => print_text(&pods),
        }
        let degraded = pods.iter().any(|pod| !pod.warnings.is_empty());
        Ok(if degraded {
            ExitCode::from(DEGRADED)
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn print_text(pods: &[PodStatus]) {
    if pods.is_empty() {
        println!("No pod is captured.");
        return;
    }
    let mut table = table([
        "NETNS",
        "CGROUP",
        "PROXY",
        "LISTENING",
        "INBOUND",
        "OUTBOUND",
        "IPV6",
    ]);
    for pod in pods {
        table.add_row(row(pod));
    }
    println!("{table}");
    for pod in pods {
        let name = pod.attached.netns.display();
        if pod.network_changed {
            println!(
                "note: {name}: its interfaces, addresses or routes have changed since it was \
                 attached: attach it again, or use `interceptor run`, which follows them"
            );
        }
        for warning in &pod.warnings {
            println!("warning: {name}: {warning}");
        }
    }
}

fn row(pod: &PodStatus) -> [String; 7] {
    let settings = &pod.attached.settings;
    let ids = |ids: &[u32]| join(ids);
    [
        pod.attached.netns.display().to_string(),
        pod.attached.cgroup.display().to_string(),
        format!(
            "uid {} gid {}",
            ids(settings.proxy_uids.as_slice()),
            ids(settings.proxy_gids.as_slice())
        ),
        format!(
            "{}: {}, {}: {}",
            settings.outbound_port,
            yes_or_no(pod.outbound_listeners > 0),
            settings.inbound_port,
            yes_or_no(pod.inbound_listeners > 0)
        ),
        inbound(
            &settings.inbound_ports,
            &join(&settings.inbound_ports_exclude),
        ),
        outbound(
            &settings.outbound_prefixes,
            &join(&settings.outbound_prefixes_exclude),
            &join(&settings.outbound_ports_exclude),
        ),
        yes_or_no(pod.attached.ipv6).to_owned(),
    ]
}

fn inbound(ports: &PortSelection, excluded: &str) -> String {
    match ports {
        PortSelection::None => "none".to_owned(),
        PortSelection::All if excluded.is_empty() => "all".to_owned(),
        PortSelection::All => format!("all but {excluded}"),
        PortSelection::Listed(ports) => join(ports),
    }
}

fn outbound(prefixes: &PrefixSelection, excluded: &str, excluded_ports: &str) -> String {
    let mut text = match prefixes {
        PrefixSelection::All => "all".to_owned(),
        PrefixSelection::Listed(prefixes) if prefixes.is_empty() => "none".to_owned(),
        PrefixSelection::Listed(prefixes) => join(prefixes),
    };
    if !excluded.is_empty() {
        text = format!("{text} but {excluded}");
    }
    if !excluded_ports.is_empty() {
        text = format!("{text} but ports {excluded_ports}");
    }
    text
}

fn join(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

const fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
