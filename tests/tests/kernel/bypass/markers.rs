//! Markers, after which all earlier packets have arrived.
//!
//! A packet on a veth or on `lo` waits in a queue of the processor that sends it, and a processor
//! handles its queue in order. So when a marker of each processor has arrived, all packets have that
//! were sent before. What the kernel sends in response to them is in the same queue, before the next
//! marker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use interceptor_testkit::{
    capture::Capture,
    packet::{self, RST, Transport},
    world::World,
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// No host has these addresses, so no host responds. The port is of the discard protocol.
const UNUSED: [u8; 6] = [2, 0, 0, 0, 0xff, 0xff];
const END: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
/// A packet, its response, the resolution of the responder's next hop, and that of the sender.
const ROUND_TRIPS: usize = 4;

/// Both ends of the pod's first link.
pub(super) struct Markers {
    pod: Capture,
    peer: Capture,
    /// What no program at the peer's side has dropped, of both links.
    at_peer: Capture,
}

impl Markers {
    pub(super) fn new(world: &World) -> Result<Self> {
        Ok(Self {
            pod: Capture::start(world.pod(), "eth0")?,
            peer: Capture::start(world.peer(), "eth0")?,
            at_peer: Capture::after_tc(world.peer(), &["eth0", "eth1"])?,
        })
    }

    /// The packets that have reached the peer since the last call, once no packet is on its way.
    pub(super) fn packets_at_peer(&self) -> Result<Vec<Transport>> {
        let mut packets = Vec::new();
        for _ in 0..ROUND_TRIPS {
            pass(&self.peer, &self.pod)?;
            packets.extend(pass(&self.pod, &self.at_peer)?);
        }
        packets.retain(|packet| !is_marker(packet));
        Ok(packets)
    }
}

/// The packets that arrive at an end before the markers from the other one.
fn pass(from: &Capture, to: &Capture) -> Result<Vec<Transport>> {
    // A segment without data: strict mode lets it pass, and no other packet is like it.
    let marker = packet::segment(END, END, RST, &[]);
    let frame = packet::frame(
        UNUSED,
        UNUSED,
        None,
        &packet::ip(END.ip(), END.ip(), &marker),
    );
    let processors = on_each_processor(|| from.send(&frame))?;
    to.take_until(processors, is_marker)
}

const fn is_marker(packet: &Transport) -> bool {
    matches!(packet.ports, Some((from, to)) if from == END.port() && to == END.port())
}

/// Runs `work` on each processor in turn, and returns their number.
fn on_each_processor(work: impl Fn() -> Result<()>) -> Result<usize> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let is_allowed = |processor: &usize| allowed.is_set(*processor).unwrap_or(false);
    let processors: Vec<_> = (0..CpuSet::count()).filter(is_allowed).collect();
    let run = |processor: &usize| {
        let mut only = CpuSet::new();
        only.set(*processor)?;
        sched_setaffinity(this_thread, &only)?;
        work()
    };
    let result = processors.iter().try_for_each(run);
    sched_setaffinity(this_thread, &allowed)?;
    result.map(|()| processors.len())
}
