//! Fixtures of the kernel tests: namespaces, cgroups, processes in them, and two identical worlds,
//! one behind Istio's iptables rules and one behind Interceptor.
//!
//! Nothing outlives the test process, however it exits: its children die with it ([`spawn`]),
//! namespaces have no other name than their processes, and a [`janitor`] deletes cgroups and
//! detaches Interceptor.

pub mod actor;
pub mod apiserver;
pub mod attachment;
pub mod bpf;
pub mod capture;
pub mod cgroup;
pub mod chromium;
pub mod cleanup;
pub mod command;
pub mod conntrack;
pub mod containerd;
pub mod dialler;
pub mod faults;
pub mod forged;
pub mod helm;
pub mod https;
pub mod inner;
pub mod interceptor;
pub mod interruption;
pub mod janitor;
pub mod kept;
pub mod lab;
pub mod machine;
pub mod manifests;
pub mod model;
pub mod netns;
pub mod node;
pub mod original;
pub mod packet;
pub mod random;
pub mod rules;
pub mod scenario;
pub mod settings;
pub mod sidecar;
pub mod smoke;
pub mod snapshot;
pub mod spawn;
pub mod sysctl;
pub mod tap;
pub mod topology;
pub mod users;
pub mod webhook;
pub mod world;
