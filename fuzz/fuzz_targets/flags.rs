//! istio-iptables' flags and variables, and the verdicts that follow from them.

#![no_main]

use interceptor::fuzzing::flags;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| flags(data));
