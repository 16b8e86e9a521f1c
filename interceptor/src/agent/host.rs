//! What the agent reads from the node: cgroups, sandboxes and files.

pub mod cgroup_events;
pub(super) mod inotify;
pub mod kubepods;
pub(super) mod malloc;
pub mod sandboxes;
