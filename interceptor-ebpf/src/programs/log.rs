//! Verdicts told to `interceptor run --log`, by aya-log. Off unless a policy asks for it: what is
//! left then is the test of a flag that is at hand anyway.

use aya_log_ebpf::info;
use interceptor_ebpf::{Address, Flow, Policy, PolicyFlags, Verdict};

/// Tells of the verdict on `flow`, if the policy asks for it.
#[inline(always)]
pub(crate) fn verdict(policy: &Policy, flow: &Flow, verdict: &Verdict) {
    if !policy.flags.contains(PolicyFlags::LOG) {
        return;
    }
    let (to, reason) = match verdict {
        Verdict::Pass(reason) => (0, *reason as u16),
        Verdict::Capture(listener, reason) => (listener.port(policy), *reason as u16),
    };
    match flow {
        Flow::Outbound(flow) => outbound(&Entry {
            address: bytes(flow.destination),
            uid: flow.owner.uid,
            port: flow.port,
            to,
            reason,
        }),
        Flow::Inbound(flow) => inbound(&Entry {
            address: bytes(flow.destination),
            uid: u32::MAX,
            port: flow.port,
            to,
            reason,
        }),
    }
}

/// What is told. Functions of BPF take five arguments at most, and nothing that is not initialized.
struct Entry {
    address: [u8; 16],
    uid: u32,
    port: u16,
    to: u16,
    reason: u16,
}

// The first argument of the macro is not used so far (aya-log-ebpf 0.2).

#[inline(never)]
fn outbound(entry: &Entry) {
    info!(
        (),
        "out {:i} {} uid {} to {} reason {}",
        entry.address,
        entry.port,
        entry.uid,
        entry.to,
        entry.reason
    );
}

#[inline(never)]
fn inbound(entry: &Entry) {
    info!(
        (),
        "in {:i} {} to {} reason {}", entry.address, entry.port, entry.to, entry.reason
    );
}

#[inline(always)]
fn bytes(address: Address) -> [u8; 16] {
    zerocopy::transmute!(address.words())
}
