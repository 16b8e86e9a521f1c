//! Logs verdicts by aya-log, for `interceptor run --log`. If the policy does not enable it, the cost is
//! the test of one flag.

use aya_log_ebpf::info;
use interceptor_ebpf::{Address, Flow, Policy, PolicyFlags, Verdict};

/// Logs the verdict on `flow`, if the policy enables it.
#[inline(always)]
pub(crate) fn verdict(policy: &Policy, flow: &Flow, verdict: &Verdict) {
    if !policy.flags.contains(PolicyFlags::LOG) {
        return;
    }
    let (to, reason) = match verdict {
        Verdict::Pass(reason) => (0, *reason),
        Verdict::Capture(listener, reason) => (listener.port(policy), *reason),
    };
    let _logged = match flow {
        Flow::Outbound(flow) => {
            let [first, second] = halves(flow.destination);
            let ports = pack(flow.port, to);
            icept_log_out(first, second, ports, flow.owner.uid, reason as u32)
        }
        Flow::Inbound(flow) => {
            let [first, second] = halves(flow.destination);
            icept_log_in(first, second, pack(flow.port, to), reason as u32)
        }
    };
}

// The verifier verifies a global function once, but a static one again for every verdict, and these
// were most of its work. Global functions have at most five numbers as arguments, and must return one.
//
// (aya-log-ebpf 0.2 does not use the first argument of the macro.)

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_log_out(first: u64, second: u64, ports: u32, uid: u32, reason: u32) -> u32 {
    let (port, to) = unpack(ports);
    info!(
        (),
        "out {:i} {} uid {} to {} reason {}",
        bytes(first, second),
        port,
        uid,
        to,
        reason
    );
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_log_in(first: u64, second: u64, ports: u32, reason: u32) -> u32 {
    let (port, to) = unpack(ports);
    info!(
        (),
        "in {:i} {} to {} reason {}",
        bytes(first, second),
        port,
        to,
        reason
    );
    0
}

/// Two ports as one number.
#[inline(always)]
fn pack(port: u16, to: u16) -> u32 {
    u32::from(port) << 16 | u32::from(to)
}

#[inline(always)]
fn unpack(ports: u32) -> (u16, u16) {
    ((ports >> 16) as u16, ports as u16)
}

#[inline(always)]
fn halves(address: Address) -> [u64; 2] {
    zerocopy::transmute!(address.words())
}

#[inline(always)]
fn bytes(first: u64, second: u64) -> [u8; 16] {
    zerocopy::transmute!([first, second])
}
