//! The node agent.

#[cfg(test)]
mod fixtures;
pub mod index;
pub mod install;
pub mod intent;
pub mod leaving;
pub mod pod;
pub mod protocol;
pub mod proxy_config;
pub mod selection;
pub mod tightening;
