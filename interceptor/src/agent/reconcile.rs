//! Reconciliation: attaches and detaches the node's pods as the index decides.

pub(super) mod close_connections;
pub(super) mod cni_handler;
pub mod controller;
pub mod network_watch;
pub(super) mod pod_task;
pub mod relist;
pub(super) mod sweeps;
pub mod worker;
