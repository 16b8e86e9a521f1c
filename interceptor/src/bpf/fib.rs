//! Where the kernel keeps a network namespace, and the state of its routing tables.

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::Array,
    programs::{Program, RawTracePointRunOptions, TestRun as _},
};
use interceptor_ebpf::NetnsState;

use super::{hooks::FIB_PROGRAM, object::Object};

/// The state of the network namespace that the calling thread is in.
///
/// # Minimum kernel version
///
/// 5.10: raw tracepoints in `BPF_PROG_TEST_RUN`.
pub fn state(object: &mut Object) -> Result<NetnsState> {
    let Program::RawTracePoint(program) = object.program(FIB_PROGRAM)? else {
        bail!("{FIB_PROGRAM} is not a raw tracepoint");
    };
    let result = program
        .test_run(RawTracePointRunOptions::default())
        .context("cannot run icept_fib")?;
    ensure!(result.return_value != 0, "icept_fib cannot tell its result");
    let map = object
        .ebpf_mut()
        .map_mut("icept_fib_gen")
        .context("the object has no map icept_fib_gen")?;
    let found: Array<_, NetnsState> = map.try_into()?;
    let state = found.get(&0, 0)?;
    ensure!(
        state.net != 0,
        "icept_fib cannot find the calling task's network namespace"
    );
    Ok(state)
}
