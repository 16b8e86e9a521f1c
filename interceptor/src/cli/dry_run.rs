//! What would be in force.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::output::Format;
use crate::{
    rules::{Family, Rules},
    settings::Settings,
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

/// Prints the settings and the rules that they stand for.
pub(super) fn print(settings: &Settings, format: Format) -> Result<()> {
    let rules = RulesOfBoth {
        ipv4: Rules::new(settings, Family::V4),
        ipv6: Rules::new(settings, Family::V6),
    };
    match format {
        Format::Json => {
            let plan = Plan { settings, rules };
            println!("{}", serde_json::to_string_pretty(&plan)?);
        }
        Format::Text => {
            println!("# Settings");
            print_settings(settings)?;
            println!("\n# The rules that they stand for, as iptables-restore reads them");
            print!("{}", rules.ipv4);
            println!(
                "\n# The same for ip6tables-restore, {}",
                ipv6_condition(settings)
            );
            print!("{}", rules.ipv6);
        }
    }
    Ok(())
}

/// One line each, as comments among the rules.
fn print_settings(settings: &Settings) -> Result<()> {
    let value = serde_json::to_value(settings)?;
    let settings = value.as_object().context("settings have names")?;
    for (name, value) in settings {
        println!("# {name} = {value}");
    }
    Ok(())
}

const fn ipv6_condition(settings: &Settings) -> &'static str {
    if settings.dual_stack {
        "if any of the pod's addresses is an IPv6 one"
    } else {
        "if the pod's first address is an IPv6 one"
    }
}
