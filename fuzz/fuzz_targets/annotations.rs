//! Annotations with which a pod says what is captured.

#![no_main]

use interceptor::fuzzing::annotations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| annotations(data));
