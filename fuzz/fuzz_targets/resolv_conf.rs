//! A pod's resolv.conf.

#![no_main]

use interceptor::fuzzing::resolv_conf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| resolv_conf(data));
