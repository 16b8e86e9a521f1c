//! The state of a network namespace's routing tables.

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::Array,
    programs::{Program, RawTracePointRunOptions, TestRun as _},
};
use interceptor_ebpf::FibGeneration;

use super::{hooks::FIB_PROGRAM, object::Object};

/// The state of the routing tables of the network namespace that the calling thread is in. `None`
/// where the kernel's BTF does not tell where it is kept; copied routes then never refuse.
///
/// # Minimum kernel version
///
/// 5.10: raw tracepoints in `BPF_PROG_TEST_RUN`.
pub fn generation(object: &mut Object) -> Result<Option<FibGeneration>> {
    let Program::RawTracePoint(program) = object.program(FIB_PROGRAM)? else {
        bail!("{FIB_PROGRAM} is not a raw tracepoint");
    };
    let result = program
        .test_run(RawTracePointRunOptions::default())
        .context("cannot run icept_fib")?;
    if result.return_value == 0 {
        return Ok(None);
    }
    let map = object
        .ebpf_mut()
        .map_mut("icept_fib_gen")
        .context("the object has no map icept_fib_gen")?;
    let found: Array<_, FibGeneration> = map.try_into()?;
    Ok(Some(found.get(&0, 0)?))
}
