//! What is read from BPF maps: events and records.

#![no_main]

use interceptor::fuzzing::map_records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| map_records(data));
