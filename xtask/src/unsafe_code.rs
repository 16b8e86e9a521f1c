//! The modules that may contain `unsafe`: all others are safe Rust.

use std::path::Path;

use anyhow::{Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{command::say, source};

const CRATES: [&str; 8] = [
    "bench/src",
    "fuzz/fuzz_targets",
    "injection/src",
    "interceptor-ebpf/src",
    "interceptor/src",
    "testkit/src",
    "tests/src",
    "xtask/src",
];

/// A module, or a directory of modules, and what is unsafe there. Before you add one, look for a safe
/// function in nix, in aya, or in one of these modules.
const ALLOWED: [(&str, &str); 30] = [
    // The product's binary: system calls that nix does not have.
    ("interceptor/src/agent/host/inotify.rs", "inotify's events"),
    ("interceptor/src/agent/host/malloc.rs", "mallopt"),
    ("interceptor/src/bpf/grace.rs", "membarrier"),
    ("interceptor/src/bpf/sys.rs", "bpf"),
    (
        "interceptor/src/netns/sys.rs",
        "socket options and ioctls of namespaces",
    ),
    // What the binary and the programs share.
    (
        "interceptor-ebpf/src/layout.rs",
        "types without padding, for aya",
    ),
    // The BPF programs: the kernel's memory, and what aya leaves unsafe, such as a map's lookup.
    (
        "interceptor-ebpf/src/programs/context.rs",
        "the programs' contexts",
    ),
    (
        "interceptor-ebpf/src/programs/context/",
        "the programs' contexts",
    ),
    (
        "interceptor-ebpf/src/programs/count.rs",
        "counters of one processor",
    ),
    ("interceptor-ebpf/src/programs/events.rs", "the ring buffer"),
    ("interceptor-ebpf/src/programs/fib.rs", "the current task"),
    (
        "interceptor-ebpf/src/programs/kernel_memory.rs",
        "the kernel's structures",
    ),
    (
        "interceptor-ebpf/src/programs/listeners.rs",
        "sockets in maps",
    ),
    (
        "interceptor-ebpf/src/programs/lookup.rs",
        "a map's value, read while it changes",
    ),
    (
        "interceptor-ebpf/src/programs/own_addresses.rs",
        "a callback of bpf_loop",
    ),
    ("interceptor-ebpf/src/programs/packet.rs", "packets"),
    ("interceptor-ebpf/src/programs/packet/", "packets"),
    ("interceptor-ebpf/src/programs/pod.rs", "maps"),
    ("interceptor-ebpf/src/programs/self_connections.rs", "maps"),
    ("interceptor-ebpf/src/programs/stand_ins.rs", "maps"),
    ("interceptor-ebpf/src/programs/strict.rs", "maps"),
    // Tests and benchmarks: system calls that nix does not have.
    ("bench/src/workloads/acceleration/probes.rs", "FIONREAD"),
    ("testkit/src/faults/seccomp.rs", "seccomp notifications"),
    (
        "testkit/src/actor/process/passing.rs",
        "descriptors from a message",
    ),
    (
        "testkit/src/actor/process/raw.rs",
        "calls with forged arguments",
    ),
    ("testkit/src/actor/process/ring.rs", "io_uring"),
    ("testkit/src/actor/process/xdp.rs", "AF_XDP"),
    ("testkit/src/bpf.rs", "bpf"),
    ("testkit/src/bpf/", "bpf"),
    ("testkit/src/lab/traces.rs", "BPF_PROG_QUERY"),
];

/// Fails if another module contains `unsafe`, or if one of these no longer does.
pub(crate) fn check() -> Result<()> {
    let found = modules()?;
    let mut count = 0;
    let is_allowed = |path: &str| ALLOWED.iter().any(|(allowed, _)| path.starts_with(allowed));
    for path in found.iter().filter(|path| !is_allowed(path)) {
        say(&format!(
            "{path}: `unsafe` in a module that is not in the list"
        ));
        count += 1;
    }
    for (allowed, what) in ALLOWED {
        if !found.iter().any(|path| path.starts_with(allowed)) {
            say(&format!("{allowed} ({what}): no `unsafe`"));
            count += 1;
        }
    }
    ensure!(
        count == 0,
        "the list of modules in xtask/src/unsafe_code.rs is wrong in {count} place(s): move the code to a \
         module of the list, or change the list"
    );
    Ok(())
}

/// The paths of all modules that contain `unsafe` outside their tests.
fn modules() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for dir in CRATES {
        let files = source::of_crate(Path::new(dir))?;
        let unsafe_files = files.into_iter().filter(|file| is_unsafe(&file.tokens));
        found.extend(unsafe_files.map(|file| file.path.to_string_lossy().into_owned()));
    }
    Ok(found)
}

/// Whether there is an unsafe block, function or implementation. An unsafe attribute, which names a
/// symbol, is not meant.
fn is_unsafe(tokens: &TokenStream) -> bool {
    let mut tokens = tokens.clone().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let found = match &token {
            TokenTree::Ident(ident) => {
                ident == "unsafe" && !tokens.peek().is_some_and(is_parenthesis)
            }
            TokenTree::Group(group) => is_unsafe(&group.stream()),
            _ => false,
        };
        if found {
            return true;
        }
    }
    false
}

fn is_parenthesis(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_found_also_in_macros() {
        let is_unsafe = |source: &str| is_unsafe(&source.parse().unwrap());
        assert!(is_unsafe("fn f() { g(unsafe { h() }) }"));
        assert!(is_unsafe("unsafe impl Send for A {}"));
        assert!(is_unsafe("macro_rules! m { () => { unsafe { h() } } }"));
        assert!(!is_unsafe("#[unsafe(no_mangle)] fn f() {}"));
        assert!(!is_unsafe("/// unsafe { }\nfn f() { g(\"unsafe { }\") }"));
    }
}
