//! Messages between the CNI plugin, the agent and observers.

#![no_main]

use interceptor::fuzzing::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wire(data));
