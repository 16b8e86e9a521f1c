//! The packets that interfaces receive.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};

use crate::{
    actor::process::{packet_socket, set_option},
    command::{bounded, run},
    netns::Netns,
    packet::{self, Transport},
};

/// Do not capture what the interface sends.
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// More than any interface's frames.
const MAX_FRAME: usize = 1 << 16;
/// Time limit of a packet that is sure to arrive.
const PACKET_TIMEOUT: Duration = Duration::from_secs(10);

/// A packet socket that records what an interface receives, until it is dropped.
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Starts it.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = netns.enter(|| {
            let socket = packet_socket(interface)?;
            let on = 1_i32.to_ne_bytes();
            set_option(
                socket.as_fd(),
                libc::SOL_PACKET,
                PACKET_IGNORE_OUTGOING,
                &on,
            )?;
            Ok(socket)
        })?;
        Ok(Self { socket })
    }

    /// Starts it for what `interfaces` receive and no program of tc drops: copies, because a packet
    /// socket at an interface records what arrives before tc. (nftables' hook is after tc.)
    pub fn after_tc(netns: &Netns, interfaces: &[&str]) -> Result<Self> {
        netns.ip("link add copies type veth peer name copied")?;
        // In this order, the sending end has a carrier from the start, without which it drops frames.
        for device in ["copied", "copies"] {
            netns.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
            netns.ip(&format!("link set {device} up"))?;
        }
        let interfaces = interfaces.join(", ");
        let copy = format!(
            "table netdev capture {{\n\
                 chain copy {{\n\
                     type filter hook ingress devices = {{ {interfaces} }} priority 0;\n\
                     dup to \"copies\"\n\
                 }}\n\
             }}\n"
        );
        netns.enter(|| run(bounded("nft").args(["-f", "-"]), &copy))?;
        Self::start(netns, "copied")
    }

    /// The IP packets since the last call.
    pub fn take(&self) -> io::Result<Vec<Transport>> {
        let mut packets = Vec::new();
        let mut frame = vec![0; MAX_FRAME];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => packets.extend(packet::read(&frame[..length])),
                // The interface has been down in the meantime.
                Err(Errno::ENETDOWN) => {}
                Err(Errno::EAGAIN) => return Ok(packets),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The IP packets since the last call, and until `count` of them match.
    pub fn take_until(
        &self,
        count: usize,
        matches: impl Fn(&Transport) -> bool,
    ) -> Result<Vec<Transport>> {
        let deadline = Instant::now() + PACKET_TIMEOUT;
        let mut packets = Vec::new();
        loop {
            packets.extend(self.take()?);
            if packets.iter().filter(|packet| matches(packet)).count() >= count {
                return Ok(packets);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "{count} packets did not arrive: {packets:?}"
            );
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(left)?)?;
        }
    }

    /// Sends a frame out of the interface.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}
