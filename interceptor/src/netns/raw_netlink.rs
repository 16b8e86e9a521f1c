//! A blocking netlink socket (`netlink(7)`) for what `rtnetlink` cannot do: requests of other
//! families, and dumps that stop early. `rtnetlink` decodes every message of a dump, and a pod can
//! create any number of routes.

use std::{io, ops::ControlFlow};

use rtnetlink::{
    packet_core::{
        ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    },
    sys::Socket,
};

/// The size of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// The largest datagram of a dump.
const MAX_DATAGRAM: usize = 32 * 1024;

/// A socket of the calling thread's network namespace.
pub(super) struct RawNetlink(Socket);

impl RawNetlink {
    /// Opens a socket of a protocol such as `NETLINK_ROUTE`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        Socket::new(protocol).map(Self)
    }

    /// Opens a socket on which the kernel filters a dump by the fields of its request.
    ///
    /// # Minimum kernel version
    ///
    /// 4.20: `NETLINK_GET_STRICT_CHK`.
    pub(super) fn open_strict(protocol: isize) -> io::Result<Self> {
        let strict = Self::open(protocol)?;
        strict.0.set_netlink_get_strict_chk(true)?;
        Ok(strict)
    }

    /// Requests a change and waits for its acknowledgement.
    pub(super) fn change(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        let mut ignore = |_: &[u8]| ControlFlow::Continue(());
        self.request(NLM_F_ACK, kind, body, &mut ignore)
    }

    /// Calls `each` with the body of the response, if there is one.
    pub(super) fn get(
        &self,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.request(NLM_F_ACK, kind, body, &mut |message| {
            each(message);
            ControlFlow::Continue(())
        })
    }

    /// Calls `each` with the body of every message of a dump.
    pub(super) fn dump(
        &self,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        self.request(NLM_F_DUMP, kind, body, &mut |message| {
            each(message);
            ControlFlow::Continue(())
        })
    }

    /// The same until `each` breaks: closing the socket discards the rest of the dump.
    pub(super) fn dump_until(
        self,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.request(NLM_F_DUMP, kind, body, each)
    }

    fn request(
        &self,
        flags: u16,
        kind: u16,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.0.send(&request(flags, kind, body)?, 0)?;
        let mut datagram = Vec::with_capacity(MAX_DATAGRAM);
        loop {
            datagram.clear();
            self.0.recv(&mut datagram, 0)?;
            if read(&datagram, each)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// The sequence number stays 0: a socket has one request at a time.
fn request(flags: u16, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut request = vec![0; HEADER];
    request.extend(body);
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    Ok(request)
}

/// Reads one datagram. Breaks at the end of the response, or if `each` breaks.
pub(super) fn read(
    mut messages: &[u8],
    each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    while !messages.is_empty() {
        let message = NetlinkBuffer::new_checked(messages).map_err(io::Error::other)?;
        match message.message_type() {
            NLMSG_DONE => return Ok(ControlFlow::Break(())),
            NLMSG_ERROR => return acknowledged(message.payload()).map(ControlFlow::Break),
            _ if each(message.payload()).is_break() => return Ok(ControlFlow::Break(())),
            _ => {}
        }
        let aligned = (HEADER + message.payload_length()).next_multiple_of(4);
        messages = messages.get(aligned..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(()))
}

fn acknowledged(payload: &[u8]) -> io::Result<()> {
    let error = ErrorBuffer::new_checked(payload).map_err(io::Error::other)?;
    match error.code() {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(datagram: &[u8]) -> (Vec<Vec<u8>>, io::Result<ControlFlow<()>>) {
        let mut bodies = Vec::new();
        let result = read(datagram, &mut |body| {
            bodies.push(body.to_vec());
            ControlFlow::Continue(())
        });
        (bodies, result)
    }

    #[test]
    fn a_dump_ends_with_done() {
        let first = request(0, 16, &[1, 2, 3, 4]).unwrap();
        let second = request(0, 16, &[5, 6, 7, 8]).unwrap();
        let done = request(0, NLMSG_DONE, &[0; 4]).unwrap();
        let (bodies, result) = collect(&[first.clone(), second.clone()].concat());
        assert_eq!(bodies, [[1, 2, 3, 4], [5, 6, 7, 8]]);
        assert!(result.unwrap().is_continue());
        let (bodies, result) = collect(&[first, done, second].concat());
        assert_eq!(bodies, [[1, 2, 3, 4]]);
        assert!(result.unwrap().is_break());
    }

    #[test]
    fn an_error_message_is_the_errno() {
        let acknowledgement = request(0, NLMSG_ERROR, &[0; 20]).unwrap();
        assert!(collect(&acknowledgement).1.unwrap().is_break());
        let body = [(-libc::ENOENT).to_ne_bytes().as_slice(), &[0; 16]].concat();
        let refusal = request(0, NLMSG_ERROR, &body).unwrap();
        let error = collect(&refusal).1.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    /// A finding of the fuzz target `netlink`.
    #[test]
    fn any_number_is_an_errno() {
        let body = [i32::MIN.to_ne_bytes().as_slice(), &[0; 16]].concat();
        let refusal = request(0, NLMSG_ERROR, &body).unwrap();
        let error = collect(&refusal).1.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(i32::MAX));
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        let message = request(0, 16, &[1, 2, 3, 4]).unwrap();
        assert!(collect(&message[..18]).1.is_err());
    }
}
