//! The node agent.

pub mod index;
pub mod intent;
pub mod pod;
pub mod protocol;
pub mod selection;
pub mod tightening;
