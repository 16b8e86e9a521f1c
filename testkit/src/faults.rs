//! Fault injection: makes one system call of a process fail, in the unchanged product and in the
//! libraries that it uses.
//!
//! A launcher ([`launcher`]) installs a seccomp filter, passes the filter's listener to a
//! [`Supervisor`], and executes the product. The kernel then reports each `bpf(2)`,
//! netlink and file call of the process and its threads to the supervisor (`SECCOMP_RET_USER_NOTIF`),
//! which lets the call continue, or fails it. `strace --inject` counts the calls of each thread apart, and distinguishes
//! neither the commands of `bpf(2)` nor files from pipes.

mod call;
mod fault;
pub mod launcher;
mod notification;
mod seccomp;
mod supervisor;

pub use fault::{Failure, Fault, Recorded};
pub use supervisor::Supervisor;
