//! The node agent.

pub mod intent;
pub mod pod;
pub mod protocol;
pub mod selection;
