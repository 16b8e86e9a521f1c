//! `interceptor status`

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    output::{Format, json, table},
    pod_ref::PodRef,
};
use crate::{
    host,
    settings::{
        DnsCapture, Mode, OwnerGroups, Settings, ports::PortSelection, prefixes::PrefixSelection,
    },
    status::{self, PodStatus},
    stdio,
};

/// Exit code if a captured pod has a warning.
const DEGRADED: u8 = 3;

/// Show captured pods and their settings: all, or one
///
/// Exits with 3 if a pod has a warning, which the output shows.
#[derive(Args)]
pub(super) struct Status {
    // Without one: all pods.
    #[command(flatten)]
    pod: PodRef,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let pods = status::read(self.pod.netns()?.as_ref())?;
        stdio::print(&match self.output {
            Format::Json => json(&pods)?,
            Format::Text => text(&pods)?,
        })?;
        let degraded = pods.iter().any(|pod| !pod.warnings.is_empty());
        Ok(if degraded {
            ExitCode::from(DEGRADED)
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn text(pods: &[PodStatus]) -> Result<String> {
    if pods.is_empty() {
        return Ok("No pod is captured.\n".to_owned());
    }
    let mut table = table(["POD", "PROXY", "LISTENING", "INBOUND", "OUTBOUND", "IPV6"]);
    for pod in pods {
        table.add_row(row(pod));
    }
    let mut text = format!("{table}\n");
    for pod in pods {
        let name = name(pod);
        if pod.network_changed {
            writeln!(
                text,
                "note: {name}: its interfaces, addresses or routes have changed since the attach: \
                 attach it again, or use `interceptor run`, which follows changes"
            )?;
        }
        for warning in &pod.warnings {
            writeln!(text, "warning: {name}: {warning}")?;
        }
    }
    Ok(text)
}

/// The pod's name, or its network namespace.
fn name(pod: &PodStatus) -> String {
    match &pod.attached.pod {
        Some(name) => name.to_string(),
        None => pod.attached.netns.display().to_string(),
    }
}

fn row(pod: &PodStatus) -> [String; 6] {
    let settings = &pod.attached.settings;
    let ids = |ids: &[u32]| join(ids);
    [
        name(pod),
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
        inbound(settings),
        outbound(settings),
        yes_or_no(pod.attached.ipv6).to_owned(),
    ]
}

fn inbound(settings: &Settings) -> String {
    let mut text = match &settings.inbound_ports {
        PortSelection::None => "none".to_owned(),
        PortSelection::All => "all".to_owned() + &list(" except ", &settings.inbound_ports_exclude),
        PortSelection::Listed(ports) => join(ports),
    };
    text += &list(" except interfaces ", &settings.excluded_interfaces);
    if settings.mode == Mode::Tproxy {
        text += ", by TPROXY";
    }
    text
}

fn outbound(settings: &Settings) -> String {
    let mut text = match &settings.outbound_prefixes {
        PrefixSelection::All => "all".to_owned(),
        PrefixSelection::Listed(prefixes) if prefixes.is_empty() => "none".to_owned(),
        PrefixSelection::Listed(prefixes) => join(prefixes),
    };
    text += &list(" and ports ", &settings.outbound_ports);
    text += match &settings.dns {
        DnsCapture::Off => "",
        DnsCapture::Servers(_) => " and DNS to its servers",
        DnsCapture::All => " and all DNS",
    };
    text += &list(" except ", &settings.outbound_prefixes_exclude);
    text += &list(" except ports ", &settings.outbound_ports_exclude);
    text += &list(" except interfaces ", &settings.excluded_interfaces);
    match &settings.owner_groups {
        OwnerGroups::AllBut(groups) => text += &list(" except groups ", groups.as_slice()),
        OwnerGroups::Only(groups) if groups.as_slice().is_empty() => "none".clone_into(&mut text),
        OwnerGroups::Only(groups) => text += &list(" of groups ", groups.as_slice()),
    }
    text
}

/// A list with its label, if it is not empty.
fn list(what: &str, items: &[impl ToString]) -> String {
    if items.is_empty() {
        String::new()
    } else {
        what.to_owned() + &join(items)
    }
}

fn join(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

const fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
