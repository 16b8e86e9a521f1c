//! What observers see: the outcome of each connection, with the rule that decided.
//!
//! `bpf::events` reads the events of the programs; `node` makes [`flow::Flow`]s of them, `filter`
//! selects some, and `format` prints them.

pub(crate) mod filter;
pub(crate) mod flow;
pub(crate) mod format;
pub(crate) mod node;
mod pods;
