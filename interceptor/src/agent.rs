//! The node agent.

#[cfg(test)]
mod fixtures;
pub mod index;
pub mod intent;
pub mod pod;
pub mod protocol;
pub mod proxy_config;
pub mod selection;
pub mod tightening;
