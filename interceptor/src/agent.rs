//! The node agent: has every pod of the mesh on its node captured before its first container
//! starts.

mod annotations;
mod api;
pub mod capture;
pub mod cgroup_events;
mod closing;
mod connection_metrics;
pub mod deployment;
pub mod events;
mod eviction_metrics;
#[cfg(test)]
mod fixtures;
pub mod follow;
pub mod health;
pub mod http;
pub mod index;
mod inotify;
pub mod install;
pub mod intent;
pub mod kubepods;
pub mod leaving;
mod map_metrics;
mod memory;
pub mod metrics;
pub mod missing;
pub mod node;
pub mod options;
mod plugin;
pub mod pod;
pub mod protocol;
pub mod proxy_config;
pub mod run;
pub mod sandboxes;
pub mod selection;
pub mod surroundings;
pub mod taint;
mod tending;
pub mod tightening;
pub mod watch;
