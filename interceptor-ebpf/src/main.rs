//! Interceptor's BPF programs, one hook a file. They build for the BPF target only; see
//! `cargo xtask build-ebpf`.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::inline_always,
        reason = "BPF-to-BPF calls cost stack, and the verifier knows less in the callee"
    ),
    expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "the kernel keeps ports, lengths and errnos in wider or unsigned fields; a fallible \
                  conversion would be a branch for the verifier"
    ),
    expect(
        clippy::needless_pass_by_value,
        reason = "aya's macros hand a program its context by value"
    )
)]

#[cfg(target_arch = "bpf")]
mod programs;

/// Empty: lets tools build the whole workspace for the host.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
