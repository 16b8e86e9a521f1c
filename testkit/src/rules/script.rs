//! The input of `iptables-restore`.

use std::{collections::BTreeMap, fmt};

/// The prefix of Istio's own chains.
const OWN: &str = "ISTIO_";

/// A table, in the order of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Mangle,
    Nat,
    Raw,
}

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Mangle, Self::Nat, Self::Raw];
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

/// Rules by table, in the order of their addition.
#[derive(Default)]
pub(super) struct Script {
    tables: BTreeMap<Table, Vec<String>>,
}

impl Script {
    pub(super) fn add(&mut self, table: Table, rule: String) {
        self.tables.entry(table).or_default().push(rule);
    }

    pub(super) fn text(&self) -> String {
        self.tables
            .iter()
            .flat_map(|(table, rules)| {
                let header = [format!("* {table}")].into_iter();
                let chains = chains(rules).into_iter().map(|name| format!("-N {name}"));
                let end = ["COMMIT".to_owned()];
                header.chain(chains).chain(rules.iter().cloned()).chain(end)
            })
            .map(|line| line + "\n")
            .collect()
    }
}

/// The chains to create: those with rules, in order of addition, then those that are only jump
/// targets.
fn chains(rules: &[String]) -> Vec<&str> {
    let filled = rules.iter().filter_map(|rule| rule.split(' ').nth(1));
    let targets = rules.iter().filter_map(|rule| rule.split(" -j ").nth(1));
    let mut chains = Vec::new();
    for chain in filled.chain(targets) {
        if chain.starts_with(OWN) && !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    chains
}
