//! The node agent, the CNI plugin and a real container runtime, on a node in namespaces of its own.
//! Needs root.

mod agent;
mod cni;
mod containerd;
mod injection;
mod monitoring;
