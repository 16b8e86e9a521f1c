//! The CNI plugin's arguments and configuration.

#![no_main]

use interceptor::fuzzing::cni_stdin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| cni_stdin(data));
