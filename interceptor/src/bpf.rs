//! The kernel's BPF interface: the object and its programs, links, pins and maps.

mod btf;
pub mod counts;
pub mod dispatcher;
pub mod embedded;
pub mod fib;
pub mod grace;
pub mod hooks;
pub mod interface_hooks;
pub mod layout;
pub mod link;
pub mod listeners;
pub mod log;
pub mod maps;
pub mod object;
pub mod offsets;
pub mod other_builds;
pub mod pins;
pub mod pod_state;
pub mod programs;
mod sys;
pub mod usage;
