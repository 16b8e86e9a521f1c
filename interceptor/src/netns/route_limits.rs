//! Why the copy of a pod's routes may be incomplete.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::tables::MAX_RULES;

/// The maximum number of pieces of one family that are copied for one pod. All pods share a table of
/// 2^20: 256 pods of this size fit, with both families.
pub(super) const MAX_PIECES: usize = 2048;

/// Why the copied routes of one family refuse no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// IPv6; otherwise IPv4.
    pub ipv6: bool,
    /// Why they are incomplete.
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
    /// The pod has more routes, rules or addresses than are copied for one pod.
    TooMany,
    /// The map that all pods share is full.
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
                "the pod's {family} routes are not copied: the pod has more than {MAX_PIECES} \
                 routes and addresses, or {MAX_RULES} routing rules"
            ),
            Cause::NoRoom => write!(
                formatter,
                "the pod's {family} routes are not copied: the map of routes that all pods of this \
                 machine share (icept_routes) is full"
            ),
        }?;
        write!(
            formatter,
            ": captured {family} connections reach the proxy even without a route to their \
             destination, and -c does not exclude them"
        )
    }
}
