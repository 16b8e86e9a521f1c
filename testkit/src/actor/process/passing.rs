//! Passing a socket to another actor.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, recvmsg, sendmsg, socket,
};
use socket2::Socket;

/// Opens the unix socket at which a socket may be offered.
pub(super) fn expect(at: &str, timeout: Duration) -> io::Result<Socket> {
    let config = unix_socket()?;
    bind(config.as_raw_fd(), &address(at)?)?;
    config.set_read_timeout(Some(timeout))?;
    Ok(config)
}

/// Offers `offered` at the unix socket `at`.
pub(super) fn offer(offered: &Socket, at: &str) -> io::Result<()> {
    let to = address(at)?;
    sendmsg(
        unix_socket()?.as_raw_fd(),
        &[IoSlice::new(b".")],
        &[ControlMessage::ScmRights(&[offered.as_raw_fd()])],
        MsgFlags::empty(),
        Some(&to),
    )?;
    Ok(())
}

/// Receives the socket that was offered at `inbox`.
pub(super) fn take(config: &Socket) -> io::Result<Socket> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<UnixAddr>(
        config.as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just created this descriptor for this process alone.
            return Ok(Socket::from(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// A path reaches other network namespaces. Any other name is abstract: nothing to clean up.
fn address(at: &str) -> io::Result<UnixAddr> {
    Ok(if at.starts_with('/') {
        UnixAddr::new(at)?
    } else {
        UnixAddr::new_abstract(at.as_bytes())?
    })
}

fn unix_socket() -> io::Result<Socket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(Socket::from(socket(
        AddressFamily::Unix,
        SockType::Datagram,
        flags,
        None,
    )?))
}
