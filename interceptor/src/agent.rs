//! The node agent.

pub mod install;
pub mod leaving;
pub mod protocol;
