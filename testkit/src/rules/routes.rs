//! The `ip` commands of istio-iptables: the passthrough address, and the routes of TPROXY.

use anyhow::Result;

use crate::{
    command::{bounded, run},
    netns::Netns,
    settings::{Mode, Settings},
};

pub(super) fn apply(netns: &Netns, settings: &Settings, ipv6: bool) -> Result<()> {
    if ipv6 {
        ip(netns, "-6 addr replace ::6/128 dev lo")?;
    }
    change(netns, "add", settings, ipv6)
}

/// The address stays, as istio-iptables never deletes it.
pub(super) fn remove(netns: &Netns, settings: &Settings, ipv6: bool) -> Result<()> {
    change(netns, "del", settings, ipv6)
}

fn change(netns: &Netns, verb: &str, settings: &Settings, ipv6: bool) -> Result<()> {
    if settings.mode != Mode::Tproxy || settings.inbound_ports.is_empty() {
        return Ok(());
    }
    let (mark, table) = (settings.tproxy_mark, settings.tproxy_table);
    let families: &[&str] = if ipv6 { &["-4", "-6"] } else { &["-4"] };
    for family in families {
        ip(
            netns,
            &format!("{family} rule {verb} fwmark {mark} lookup {table}"),
        )?;
        ip(
            netns,
            &format!("{family} route {verb} local default dev lo table {table}"),
        )?;
    }
    Ok(())
}

/// One process per command: a batch has one family.
fn ip(netns: &Netns, command: &str) -> Result<()> {
    netns.enter(|| run(bounded("ip").args(command.split(' ')), "").map(drop))
}
