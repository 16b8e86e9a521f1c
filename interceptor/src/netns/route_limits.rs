//! What a copy of a pod's routes cannot be relied on for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{routes::MAX_PIECES, tables::MAX_RULES};

/// Why the copied routes of one family refuse no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Whether it concerns IPv6; else IPv4.
    pub ipv6: bool,
    /// The reason.
    pub cause: Cause,
}

/// The reason of a [`Limit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A routing rule selects by more than the destination.
    Rule {
        /// Its priority (`ip rule`).
        priority: u32,
        /// What it selects by.
        selectors: Vec<String>,
    },
    /// There are more routes, rules or addresses than are copied for one pod.
    TooMany,
    /// The table that all pods share has no room.
    NoRoom,
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        match &self.cause {
            Cause::Rule {
                priority,
                selectors,
            } => write!(
                formatter,
                "the {family} routing rule of priority {priority} selects by {}, so the route \
                 differs from socket to socket",
                selectors.join(", ")
            ),
            Cause::TooMany => write!(
                formatter,
                "its {family} routes are not copied: it has more than {MAX_PIECES} routes and \
                 addresses, or {MAX_RULES} routing rules"
            ),
            Cause::NoRoom => write!(
                formatter,
                "its {family} routes are not copied: the pods of this machine have used up the \
                 table of routes (icept_routes)"
            ),
        }?;
        write!(
            formatter,
            ": captured {family} connections reach the proxy even where routing refuses them, and \
             -c lets none of them pass"
        )
    }
}
