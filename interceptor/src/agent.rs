//! The node agent.

pub mod protocol;
