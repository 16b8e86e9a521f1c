//! The kernel's responses over netlink.

#![no_main]

use interceptor::fuzzing::netlink;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| netlink(data));
