//! `--dry-run`: the settings and the equivalent iptables rules.

use anyhow::Result;
use serde::Serialize;

use super::output::Format;
use crate::{
    rules::{self, Family, Rules},
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
    let plan = Plan { settings, rules };
    stdio::print(&format.render(&plan, |plan| rules::listing(plan.settings))?)
}
