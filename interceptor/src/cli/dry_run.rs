//! `--dry-run`: the settings and the equivalent iptables rules.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::output::{Format, json};
use crate::{
    rules::{Family, Rules},
    settings::Settings,
    stdio,
};

#[derive(Serialize)]
struct Plan<'a> {
    settings: &'a Settings,
    rules: RulesOfBoth,
}

#[derive(Serialize)]
struct RulesOfBoth {
    ipv4: Rules,
    ipv6: Rules,
}

/// Prints the settings and the equivalent iptables rules.
pub(super) fn print(settings: &Settings, format: Format) -> Result<()> {
    let rules = RulesOfBoth {
        ipv4: Rules::new(settings, Family::V4),
        ipv6: Rules::new(settings, Family::V6),
    };
    stdio::print(&match format {
        Format::Json => json(&Plan { settings, rules })?,
        Format::Text => text(settings, &rules)?,
    })
}

fn text(settings: &Settings, rules: &RulesOfBoth) -> Result<String> {
    let mut text = String::from("# Settings\n");
    write_settings(&mut text, settings)?;
    let RulesOfBoth { ipv4, ipv6 } = rules;
    let condition = ipv6_condition(settings);
    write!(
        text,
        "\n# The equivalent rules, in the format of iptables-restore\n{ipv4}"
    )?;
    write!(
        text,
        "\n# The same for ip6tables-restore, applied {condition}\n{ipv6}"
    )?;
    Ok(text)
}

/// One line per setting, as comments before the rules.
fn write_settings(text: &mut String, settings: &Settings) -> Result<()> {
    let value = serde_json::to_value(settings)?;
    let settings = value.as_object().context("settings have names")?;
    for (name, value) in settings {
        writeln!(text, "# {name} = {value}")?;
    }
    Ok(())
}

const fn ipv6_condition(settings: &Settings) -> &'static str {
    if settings.dual_stack {
        "if the pod has an IPv6 address"
    } else {
        "if the pod's first address is an IPv6 address"
    }
}
