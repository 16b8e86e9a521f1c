//! Which sidecar is injected into which pods.
//!
//! The options of a command (`options`) make a plan (`plan`): where the parts of the configuration
//! are, and what to make of them. A command reads them once (`read`); the webhook watches them
//! (`watch`). Both get `inputs`, of which the plan makes a configuration, without I/O.

mod access;
mod files;
mod inputs;
mod native;
mod nodes;
mod objects;
mod options;
mod origin;
mod plan;
mod proxy_configs;
mod read;
mod sources;
mod watch;

pub(crate) use access::Access;
pub(crate) use inputs::Inputs;
pub(crate) use options::{Choices, SidecarOptions, of_cluster, without_sidecar};
pub(crate) use origin::{ConfigMapName, Origin};
pub(crate) use plan::{Configured, Plan, Problem};
pub(crate) use read::config_map;
pub(crate) use watch::watch;
