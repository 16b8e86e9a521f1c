//! The kernel's table of connections.

use std::os::fd::AsRawFd as _;

use anyhow::{Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netns::Netns;

/// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const DELETE: u16 = (1 << 8) | 2;

/// Deletes all connections of a network namespace, so that rules are evaluated again.
pub fn forget(netns: &Netns) -> Result<()> {
    netns.enter(|| {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
        let mut reply = [0; 64];
        let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        // An acknowledgement is an error message with error 0.
        let error = reply[..length].get(16..20);
        ensure!(error == Some(&[0; 4]), "conntrack: {error:?}");
        Ok(())
    })
}

/// A `struct nlmsghdr` and a `struct nfgenmsg`: no filter, so all connections.
fn request() -> Vec<u8> {
    const LENGTH: u32 = 20;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 5;

    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(DELETE.to_ne_bytes());
    request.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    request.extend([0; 12]);
    request
}
