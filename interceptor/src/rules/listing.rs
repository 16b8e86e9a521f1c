//! The settings and the equivalent rules as text, in the format of `iptables-restore`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{Family, Rules};
use crate::settings::Settings;

/// The settings as comments, then the rules of both families.
pub(crate) fn listing(settings: &Settings) -> Result<String> {
    let mut text = String::from("# Settings\n");
    write_settings(&mut text, settings)?;
    let [ipv4, ipv6] = [Family::V4, Family::V6].map(|family| Rules::new(settings, family));
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
