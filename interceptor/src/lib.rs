//! Interceptor: eBPF interception for sidecar meshes, with the semantics of istio-iptables.
//!
//! The library behind the command `interceptor`. `ARCHITECTURE.md` describes its parts.

#![warn(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic on a closed pipe: see `stdio`"
)]

pub mod agent;
mod agent_client;
mod api_server;
mod arguments;
pub mod bpf;
mod bug_report;
pub mod cgroup;
mod check;
pub mod cli;
pub mod cni;
pub mod dataplane;
mod digest;
mod exec;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod listen;
pub mod netns;
mod observe;
mod outcome;
pub mod pod_name;
pub mod policy;
mod rules;
pub mod settings;
mod sidecar;
mod status;
mod stdio;
mod validation;
mod webhook;
