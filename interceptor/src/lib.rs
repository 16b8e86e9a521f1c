//! Interceptor: eBPF interception for sidecar meshes, with the semantics of istio-iptables.
//!
//! The library is what the command `interceptor` is made of; `ARCHITECTURE.md` is the map.

#![warn(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic where the reader has gone: see `stdio`"
)]

pub mod agent;
pub mod bpf;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod cni;
pub mod dataplane;
pub mod digest;
pub mod explain;
pub mod host;
mod lists;
pub mod netns;
pub mod policy;
pub mod rules;
pub mod settings;
pub mod status;
mod stdio;
pub mod validation;
