//! Admission reviews that the API server sends to the webhook.

#![no_main]

use interceptor_injection::fuzzing::admission_review;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| admission_review(data));
