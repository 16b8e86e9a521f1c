//! Istio's iptables rules for the real iptables: the reference that Interceptor is compared with.
//!
//! They are written from a description of istio-iptables' output, share no code with Interceptor,
//! and are tested against literal lists.

mod dns;
mod inbound;
mod interfaces;
mod outbound;
mod routes;
mod script;
#[cfg(test)]
mod tests;
mod tproxy;

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use script::{Script, Table};

use crate::{
    actor::protocol::Family,
    command::{bounded, run},
    netns::Netns,
    settings::{Mode, Settings},
};

/// The port of the agent's DNS proxy, with any settings.
pub const DNS_PORT: u16 = 15053;

/// Applies the rules in a network namespace without rules: IPv6 ones only if `ipv6`.
pub fn apply(netns: &Netns, settings: &Settings, ipv6: bool) -> Result<()> {
    restore(
        netns,
        Family::V4,
        &["--noflush"],
        &input(settings, Family::V4)?,
    )?;
    if ipv6 {
        restore(
            netns,
            Family::V6,
            &["--noflush"],
            &input(settings, Family::V6)?,
        )?;
    }
    routes::apply(netns, settings, ipv6)
}

/// Replaces the rules of the settings `old`: each family's in one step.
pub fn replace(netns: &Netns, old: (&Settings, bool), new: (&Settings, bool)) -> Result<()> {
    let (settings, ipv6) = new;
    routes::remove(netns, old.0, old.1)?;
    for (family, is_on) in [(Family::V4, true), (Family::V6, ipv6)] {
        let rules = if is_on {
            input(settings, family)?
        } else {
            String::new()
        };
        // Chains that are named in the input are flushed first.
        let missing = Table::ALL
            .into_iter()
            .map(|table| format!("* {table}\n"))
            .filter(|header| !rules.contains(header))
            .map(|header| header + "COMMIT\n");
        let missing: String = missing.collect();
        restore(netns, family, &[], &(missing + &rules))?;
    }
    routes::apply(netns, settings, ipv6)
}

fn restore(netns: &Netns, family: Family, options: &[&str], input: &str) -> Result<()> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    netns.enter(|| run(bounded(program).args(options), input).map(drop))
}

/// The input of `iptables-restore` or `ip6tables-restore`.
pub fn input(settings: &Settings, family: Family) -> Result<String> {
    let mut script = Script::default();
    let rules = Rules {
        settings,
        family,
        script: &mut script,
    };
    rules.write()?;
    Ok(script.text())
}

/// The rules of one family. Each module adds some, in istio-iptables' order, which is visible
/// within a table.
struct Rules<'s> {
    settings: &'s Settings,
    family: Family,
    script: &'s mut Script,
}

impl Rules<'_> {
    fn write(mut self) -> Result<()> {
        self.exclude_interfaces();
        self.return_from_rerouted_interfaces();
        self.drop_invalid();
        self.define_redirects();
        self.capture_inbound();
        self.capture_outbound()?;
        self.divert();
        Ok(())
    }

    fn nat(&mut self, rule: impl Into<String>) {
        self.script.add(Table::Nat, rule.into());
    }

    fn mangle(&mut self, rule: impl Into<String>) {
        self.script.add(Table::Mangle, rule.into());
    }

    fn raw(&mut self, rule: impl Into<String>) {
        self.script.add(Table::Raw, rule.into());
    }

    fn is_tproxy(&self) -> bool {
        self.settings.mode == Mode::Tproxy
    }

    /// The CIDR of localhost.
    fn localhost(&self) -> &'static str {
        match self.family {
            Family::V4 => self.settings.loopback_cidr,
            Family::V6 => "::1/128",
        }
    }

    /// The source address of the proxy's connections to the app.
    fn passthrough(&self) -> &'static str {
        match self.family {
            Family::V4 => "127.0.0.6/32",
            Family::V6 => "::6/128",
        }
    }
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn address_of(cidr: &str) -> Result<IpAddr> {
    let (address, _) = cidr.split_once('/').context("a CIDR has a /")?;
    Ok(address.parse()?)
}
