//! Istio's injection templates.

#![no_main]

use interceptor_injection::fuzzing::template;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| template(data));
