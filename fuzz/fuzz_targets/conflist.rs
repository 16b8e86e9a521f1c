//! Network configurations to which the agent adds the plugin.

#![no_main]

use interceptor::fuzzing::conflist;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| conflist(data));
