//! The kernel's BPF interface: the object and its programs, links, pins and maps.

mod btf;
pub mod counts;
pub mod dispatcher;
pub(crate) mod embedded;
pub(crate) mod events;
pub(crate) mod fib;
pub(crate) mod grace;
pub(crate) mod hooks;
pub(crate) mod interface_hooks;
pub(crate) mod layout;
pub(crate) mod link;
pub(crate) mod listeners;
pub mod maps;
pub mod object;
pub(crate) mod offsets;
pub(crate) mod other_builds;
pub mod pins;
pub(crate) mod pod_state;
pub(crate) mod program_statistics;
pub(crate) mod programs;
mod sys;
pub(crate) mod usage;
