//! The iptables rules that are equivalent to settings: those that istio-iptables passes to
//! `iptables-restore` and `ip6tables-restore`.
//!
//! They are never applied: a dry run prints them, and `explain` names the one behind a verdict.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

mod build;
mod listing;
mod walk;

pub(crate) use listing::listing;
pub(crate) use walk::Packet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, net: &IpNet) -> bool {
        match self {
            Self::V4 => matches!(net, IpNet::V4(_)),
            Self::V6 => matches!(net, IpNet::V6(_)),
        }
    }
}

/// A table, in the order in which they are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Table {
    /// Marks and drops.
    Mangle,
    /// Redirects.
    Nat,
    /// Sets connection tracking zones.
    Raw,
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Raw => "raw",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub table: Table,
    pub chain: Cow<'static, str>,
    /// The position in the chain, counted from 1; `None` for the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// The matches and the target.
    pub specification: String,
}

impl Rule {
    /// The chain `ISTIO_...` that it jumps to, if any.
    fn jumps_to(&self) -> Option<&str> {
        let (_, target) = self.specification.rsplit_once("-j ")?;
        is_own(target).then_some(target)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            chain,
            specification,
            ..
        } = self;
        match self.position {
            None => write!(formatter, "-A {chain} {specification}"),
            Some(position) => write!(formatter, "-I {chain} {position} {specification}"),
        }
    }
}

fn is_own(chain: &str) -> bool {
    chain.starts_with("ISTIO_")
}

/// All rules of one family, in the order in which istio-iptables adds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// The rules of `settings`.
    #[must_use]
    pub(crate) fn new(settings: &Settings, family: Family) -> Self {
        Self(build::rules(settings, family))
    }

    fn in_table(&self, table: Table) -> impl Iterator<Item = &Rule> {
        self.0.iter().filter(move |rule| rule.table == table)
    }

    /// The chains `ISTIO_...` of a table: first those that contain rules, in the order of the rules, then
    /// those that are only jumped to.
    fn chains(&self, table: Table) -> Vec<&str> {
        let filled = self.in_table(table).map(|rule| &*rule.chain);
        let targets = self.in_table(table).filter_map(Rule::jumps_to);
        let mut seen = BTreeSet::new();
        filled
            .chain(targets)
            .filter(|chain| is_own(chain) && seen.insert(*chain))
            .collect()
    }
}

/// The input of `iptables-restore --noflush`.
impl fmt::Display for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: BTreeSet<_> = self.0.iter().map(|rule| rule.table).collect();
        for table in tables {
            writeln!(formatter, "* {table}")?;
            for chain in self.chains(table) {
                writeln!(formatter, "-N {chain}")?;
            }
            for rule in self.in_table(table) {
                writeln!(formatter, "{rule}")?;
            }
            writeln!(formatter, "COMMIT")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
