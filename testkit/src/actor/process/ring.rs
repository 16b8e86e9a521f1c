//! Socket calls by `io_uring`.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, RawFd},
    ptr, thread,
};

use io_uring::{
    IoUring, opcode, squeue,
    types::{DestinationSlot, Fd, Fixed, SubmitArgs, Timespec},
};
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket};

use super::timeouts::{CONNECT_TIMEOUT, RECEIVE_TIMEOUT};

/// The number of entries: one call at a time.
const ENTRIES: u32 = 1;
/// How long the kernel's thread polls for calls, in milliseconds.
const POLL_IDLE: u32 = 100;
/// The only direct descriptor.
const SLOT: u32 = 0;
/// More than any server's introduction.
const MAX_LINE: usize = 4096;

/// Runs the calls of a ring in a thread of their own. When the kernel removes a ring, it interrupts the
/// thread that used it (`io_ring_exit_work`): a later blocking call of that thread would return EINTR.
fn in_thread<T: Send>(calls: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(calls).join())
        .map_err(|_| io::Error::from(io::ErrorKind::Other))?
}

/// `IORING_OP_CONNECT`
pub(super) fn connect(socket: &Socket, address: SocketAddr, poll: bool) -> io::Result<()> {
    in_thread(|| connect_here(socket, address, poll))
}

/// `IORING_OP_ACCEPT`
pub(super) fn accept(listener: &Socket) -> io::Result<Socket> {
    in_thread(|| accept_here(listener))
}

/// Dials with a direct descriptor, and returns the server's first data.
pub(super) fn dial_direct(address: SocketAddr) -> io::Result<String> {
    in_thread(|| dial_direct_here(address))
}

fn connect_here(socket: &Socket, address: SocketAddr, poll: bool) -> io::Result<()> {
    let mut builder = IoUring::builder();
    if poll {
        builder.setup_sqpoll(POLL_IDLE);
    }
    let mut ring = builder.build(ENTRIES)?;
    let address = SockAddr::from(address);
    let call = opcode::Connect::new(
        Fd(socket.as_raw_fd()),
        address.as_ptr().cast(),
        address.len(),
    );
    run(&mut ring, &call.build(), CONNECT_TIMEOUT).map(drop)
}

fn accept_here(listener: &Socket) -> io::Result<Socket> {
    let mut ring = IoUring::new(ENTRIES)?;
    let call = opcode::Accept::new(Fd(listener.as_raw_fd()), ptr::null_mut(), ptr::null_mut());
    let accepted = run(&mut ring, &call.build(), CONNECT_TIMEOUT)?;
    let fd = RawFd::try_from(accepted).map_err(io::Error::other)?;
    // SAFETY: the call has returned a new descriptor.
    Ok(unsafe { Socket::from_raw_fd(fd) })
}

fn dial_direct_here(address: SocketAddr) -> io::Result<String> {
    // The buffer outlives the ring, and with it every call.
    let mut buffer = vec![0; MAX_LINE];
    let mut ring = IoUring::new(ENTRIES)?;
    ring.submitter().register_files_sparse(SLOT + 1)?;
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let slot = DestinationSlot::try_from_slot_target(SLOT).map_err(|_| Errno::EINVAL)?;
    let open = opcode::Socket::new(domain.into(), libc::SOCK_STREAM, libc::IPPROTO_TCP);
    run(
        &mut ring,
        &open.file_index(Some(slot)).build(),
        CONNECT_TIMEOUT,
    )?;
    let address = SockAddr::from(address);
    let call = opcode::Connect::new(Fixed(SLOT), address.as_ptr().cast(), address.len());
    run(&mut ring, &call.build(), CONNECT_TIMEOUT)?;
    let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    let receive = opcode::Recv::new(Fixed(SLOT), buffer.as_mut_ptr(), length);
    let received = run(&mut ring, &receive.build(), RECEIVE_TIMEOUT)?;
    buffer.truncate(received);
    Ok(String::from_utf8_lossy(&buffer).trim_end().to_owned())
}

/// Makes one call and returns its result. A call without a result in time is reported as a socket
/// call is: `EINPROGRESS`.
fn run(
    ring: &mut IoUring,
    call: &squeue::Entry,
    timeout: std::time::Duration,
) -> io::Result<usize> {
    // SAFETY: an address is copied when the call is submitted, and the buffer outlives the ring.
    unsafe { ring.submission().push(call) }.map_err(io::Error::other)?;
    let timeout = Timespec::from(timeout);
    let limited = SubmitArgs::new().timespec(&timeout);
    match ring.submitter().submit_with_args(1, &limited) {
        Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
            return Err(Errno::EINPROGRESS.into());
        }
        result => result?,
    };
    let result = ring.completion().next().ok_or(io::ErrorKind::WouldBlock)?;
    let code = result.result();
    usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code))
}
