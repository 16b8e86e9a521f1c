//! The node agent.

pub mod index;
pub mod install;
pub mod intent;
pub mod leaving;
pub mod pod;
pub mod protocol;
pub mod selection;
pub mod tightening;
