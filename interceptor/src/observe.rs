//! What observers see: the outcome of each connection, with the rule that decided.
//!
//! `bpf::events` reads the events of the programs, and `node` makes [`flow::Flow`]s of them. The node
//! agent sends them to any number of observers as [`message::Message`]s, which `agent_client` receives.
//! `filter` selects some flows, and `format` prints them.

pub(crate) mod filter;
pub(crate) mod flow;
pub(crate) mod format;
pub(crate) mod message;
pub(crate) mod node;
mod pods;
