//! Sending by a socket of `AF_XDP`: its frames pass no queueing discipline of the interface.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{MsgFlags, send},
};

use super::raw::{get_option, set_option};

/// `SOL_XDP` and its options.
const SOL_XDP: i32 = 283;
const XDP_MMAP_OFFSETS: i32 = 1;
const XDP_TX_RING: i32 = 3;
const XDP_UMEM_REG: i32 = 4;
const XDP_UMEM_FILL_RING: i32 = 5;
const XDP_UMEM_COMPLETION_RING: i32 = 6;

/// The memory of the only frame.
const CHUNK: u16 = 4096;
/// The only entry of each ring: the number of entries, and a ring's index after it.
const ONE: u32 = 1;
/// `struct xdp_desc`
const DESCRIPTOR: usize = 16;

/// `struct xdp_mmap_offsets`, and the words of the ring of sent frames in it.
const OFFSETS: usize = 128;
const PRODUCER: usize = 4;
const DESCRIPTORS: usize = 6;

/// Sends a frame out of an interface.
pub(super) fn send_frame(interface: &str, frame: &[u8]) -> io::Result<()> {
    let socket = open()?;
    let set = |name, value: &[u8]| set_option(socket.as_fd(), SOL_XDP, name, value);
    let memory = Mapping::new(None, CHUNK.into())?;
    memory.write(0, frame)?;
    // `struct xdp_umem_reg`: address and length; the size of a chunk, then no headroom and no flags.
    let address = memory.start as u64;
    let chunk = [CHUNK.into(), 0_u32, 0, 0].map(u32::to_ne_bytes);
    let pages = [
        &address.to_ne_bytes()[..],
        &u64::from(CHUNK).to_ne_bytes(),
        chunk.as_flattened(),
    ];
    set(XDP_UMEM_REG, &pages.concat())?;
    for ring in [XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING] {
        set(ring, &ONE.to_ne_bytes())?;
    }
    let (offsets, _) = get_option(socket.as_fd(), SOL_XDP, XDP_MMAP_OFFSETS, OFFSETS)?;
    let descriptors = word(&offsets, DESCRIPTORS)?;
    let ring = Mapping::new(Some(socket.as_fd()), descriptors + DESCRIPTOR)?;
    bind(&socket, interface)?;
    // An offset of 0, the length, no options.
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let descriptor = [&[0; 8][..], &length.to_ne_bytes(), &[0; 4]].concat();
    ring.write(descriptors, &descriptor)?;
    ring.write(word(&offsets, PRODUCER)?, &ONE.to_ne_bytes())?;
    send(socket.as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call has returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds the socket to the first queue of an interface, whose driver copies its frames.
fn bind(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP.try_into().map_err(io::Error::other)?,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: if_nametoindex(interface)?,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel gets the address's true length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result)?;
    Ok(())
}

/// A word of the kernel's reply.
fn word(reply: &[u8], index: usize) -> io::Result<usize> {
    let bytes = reply.get(index * 8..).and_then(|bytes| bytes.first_chunk());
    let number = u64::from_ne_bytes(*bytes.ok_or(io::ErrorKind::InvalidData)?);
    usize::try_from(number).map_err(io::Error::other)
}

/// Memory that is shared with the kernel.
struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Memory of its own, or the ring of the frames that a socket sends.
    fn new(socket: Option<BorrowedFd<'_>>, length: usize) -> io::Result<Self> {
        let (kind, fd, offset) = match socket {
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            Some(socket) => (
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                libc::XDP_PGOFF_TX_RING,
            ),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let fits = at
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.length);
        if !fits {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: within the mapping, of which there are no references; the kernel reads it later,
        // in a system call.
        unsafe {
            let to = self.start.cast::<u8>().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping, which is not used afterwards.
        let _result = unsafe { libc::munmap(self.start, self.length) };
    }
}
