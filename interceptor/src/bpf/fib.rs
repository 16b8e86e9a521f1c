//! The kernel's address of a network namespace, and the state of its routing tables.

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, Map, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use interceptor_ebpf::NetnsState;

use super::{hooks::FIB_PROGRAM, layout, object::Object, pins::Pins};

/// The program that reads the state, and the map of its result. Callers hold the machine-wide lock.
pub(crate) struct Fib {
    program: RawTracePoint,
    result: Array<MapData, NetnsState>,
}

impl Fib {
    /// Opens both.
    pub(crate) fn open(object: &mut Object, pins: &Pins) -> Result<Self> {
        let program = RawTracePoint::from_pin(object.program(FIB_PROGRAM)?)
            .with_context(|| format!("cannot open {FIB_PROGRAM}"))?;
        let map = pins.maps().join(layout::pin(layout::NETNS_STATE));
        let result = Map::Array(MapData::from_pin(map)?).try_into()?;
        Ok(Self { program, result })
    }

    /// The state of the network namespace that the calling thread is in.
    ///
    /// # Minimum kernel version
    ///
    /// 5.10: raw tracepoints in `BPF_PROG_TEST_RUN`.
    pub(crate) fn state(&self) -> Result<NetnsState> {
        let run = self
            .program
            .test_run(RawTracePointRunOptions::default())
            .with_context(|| format!("cannot run {FIB_PROGRAM}"))?;
        ensure!(
            run.return_value != 0,
            "{FIB_PROGRAM} cannot write its result"
        );
        let state = self.result.get(&0, 0)?;
        ensure!(
            state.net != 0,
            "{FIB_PROGRAM} cannot find the calling task's network namespace"
        );
        Ok(state)
    }
}
