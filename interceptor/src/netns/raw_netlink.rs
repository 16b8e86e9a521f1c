//! Netlink by hand (`netlink(7)`), for families that no crate speaks which is kept up with the others.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::sys;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// The size of what a dump answers with at once, at most.
const BUFFER: usize = 32 * 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// All that there is.
    Dump,
    /// A change, and whether it was made.
    Change,
}

/// A socket of the calling thread's network namespace.
pub(super) struct RawNetlink(OwnedFd);

impl RawNetlink {
    /// Ready to ask.
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self(socket))
    }

    /// The same, for dumps in which the kernel applies what the request names as a filter.
    ///
    /// # Minimum kernel version
    ///
    /// 4.20: `NETLINK_GET_STRICT_CHK`.
    pub(super) fn open_strict(protocol: SockProtocol) -> io::Result<Self> {
        let strict = Self::open(protocol)?;
        sys::set_option(
            &strict.0,
            libc::SOL_NETLINK,
            libc::NETLINK_GET_STRICT_CHK,
            1,
        )?;
        Ok(strict)
    }

    /// Asks, and has `each` read every message of the answer, to its end.
    pub(super) fn ask(
        &self,
        ask: Ask,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.answers(ask, kind, body, &mut |message| {
            each(message);
            ControlFlow::Continue(())
        })
    }

    /// Dumps until `each` has read enough: the rest is never asked for, and goes with the socket.
    pub(super) fn dump_until(
        self,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.answers(Ask::Dump, kind, body, each)
    }

    fn answers(
        &self,
        ask: Ask,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let request = request(ask, kind, body)?;
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if read(&buffer[..length], each)? == Answer::Ended {
                return Ok(());
            }
        }
    }
}

/// Number and sender are of no account.
fn request(ask: Ask, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let flags = match ask {
        Ask::Dump => libc::NLM_F_REQUEST | libc::NLM_F_DUMP,
        Ask::Change => libc::NLM_F_REQUEST | libc::NLM_F_ACK,
    };
    let flags = u16::try_from(flags).map_err(io::Error::other)?;
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    Ok(request)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    GoesOn,
    Ended,
}

/// Reads one datagram.
fn read(mut messages: &[u8], each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<Answer> {
    while let Some(size) = number(messages, 0).and_then(|size| usize::try_from(size).ok())
        && let Some(message) = messages.get(HEADER..size)
    {
        match i32::from(u16::from_ne_bytes([messages[4], messages[5]])) {
            libc::NLMSG_DONE => return Ok(Answer::Ended),
            libc::NLMSG_ERROR => return errno(message).map(|()| Answer::Ended),
            _ if each(message).is_break() => return Ok(Answer::Ended),
            _ => {}
        }
        let next = size.next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    Ok(Answer::GoesOn)
}

fn errno(message: &[u8]) -> io::Result<()> {
    match number(message, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The number in these bytes.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
