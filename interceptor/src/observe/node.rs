//! The flows of this node, from the events of its programs.

use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_ebpf::Event;
use jiff::SignedDuration;

use super::{flow::Flow, pods::Pods};
use crate::bpf::{
    events::{self, EventReader, OpenError},
    pins::Pins,
};

/// The interval between two calls of [`NodeFlows::read`]. At 20,000 connections in a second, a
/// twentieth of the buffer.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The programs write events for this long after the last extension.
const LEASE: Duration = Duration::from_secs(5);
/// The interval between two extensions, and between two checks that the buffer is the current one.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the flows of this node.
pub(crate) struct NodeFlows {
    pins: Pins,
    reader: Option<EventReader>,
    checked: Option<Instant>,
    pods: Pods,
    /// Of earlier buffers.
    lost_before: u64,
}

impl NodeFlows {
    /// Starts reading. Fails if another process reads them. While no pod is captured, there are no
    /// flows.
    pub(crate) fn open() -> Result<Self> {
        let mut flows = Self {
            pins: Pins::new(),
            reader: None,
            checked: None,
            pods: Pods::default(),
            lost_before: 0,
        };
        flows.check()?;
        Ok(flows)
    }

    /// The flows since the last call, in the order of their time.
    pub(crate) fn read(&mut self) -> Result<Vec<Flow>> {
        let mut events = Vec::new();
        if let Some(reader) = &mut self.reader {
            reader.read(|event| events.push(*event));
        }
        if self.checked.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL) {
            self.check()?;
        }
        // Of different processors.
        events.sort_by_key(|event| event.time);
        let now = events::now()?;
        events.iter().map(|event| self.flow(event, now)).collect()
    }

    /// The number of flows that were not read in time.
    pub(crate) fn lost(&self) -> Result<u64> {
        let lost = self.reader.as_ref().map_or(Ok(0), EventReader::lost)?;
        Ok(self.lost_before + lost)
    }

    fn flow(&mut self, event: &Event, now: Duration) -> Result<Flow> {
        let age = now.saturating_sub(Duration::from_nanos(event.time));
        Flow::of(
            event,
            SignedDuration::try_from(age)?,
            self.pods.get(event.netns),
        )
    }

    /// Extends the time until which the programs write, or finds their new buffer.
    fn check(&mut self) -> Result<()> {
        self.checked = Some(Instant::now());
        if let Some(reader) = &self.reader
            && !reader.is_current(&self.pins)
        {
            self.lost_before += reader.lost()?;
            self.reader = None;
        }
        if self.reader.is_none() {
            self.reader = match EventReader::open(&self.pins) {
                Ok(reader) => Some(reader),
                Err(OpenError::NoPod) => None,
                Err(error) => return Err(error.into()),
            };
        }
        self.reader
            .as_mut()
            .map_or(Ok(()), |reader| reader.extend(LEASE))
    }
}
