//! The system calls that no library wraps.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};

/// `getsockopt(2)` with a buffer of `length` bytes: its contents and the length that the kernel
/// returns.
pub(super) fn get_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    length: usize,
) -> nix::Result<(Vec<u8>, usize)> {
    let mut value = vec![0_u8; length];
    let mut kernel_length = libc::socklen_t::try_from(length).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel gets the buffer's true length.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut kernel_length,
        )
    };
    Errno::result(result)?;
    Ok((value, kernel_length as usize))
}

/// `setsockopt(2)`
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel gets the buffer's true length.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// `connect(2)` to an address of family `AF_UNSPEC`.
pub(super) fn disconnect(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let family = libc::sa_family_t::try_from(libc::AF_UNSPEC).map_err(|_| Errno::EINVAL)?;
    let address = libc::sockaddr {
        sa_family: family,
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel gets the address's true length.
    let result = unsafe { libc::connect(fd.as_raw_fd(), &raw const address, length) };
    Errno::result(result).map(drop)
}

/// The version of the structures of `capset(2)`: two words for each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `capset(2)` of the calling thread: no other capabilities than those of `mask`.
pub(super) fn set_capabilities(mask: u64) -> nix::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let data = [0, 32].map(|shift| {
        let word = u32::try_from(mask >> shift & 0xffff_ffff).unwrap_or_default();
        CapabilityData {
            effective: word,
            permitted: word,
            inheritable: 0,
        }
    });
    // SAFETY: both structures are the ones of this version.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// A packet socket for all protocols, bound to an interface.
pub(crate) fn packet_socket(interface: &str) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let packets = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )?;
    // SAFETY: zero is a value of every field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.try_into().map_err(|_| Errno::EINVAL)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(|_| Errno::EINVAL)?
        .to_be();
    address.sll_ifindex = if_nametoindex(interface)?
        .try_into()
        .map_err(|_| Errno::EINVAL)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel gets the address's true length.
    let result = unsafe { libc::bind(packets.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result)?;
    Ok(packets)
}

/// A tun device, whose packets have no header before IP's. It is the one of this name if there is
/// one that no process has open.
pub(super) fn tun(interface: &str) -> io::Result<File> {
    let device = File::options().write(true).open("/dev/net/tun")?;
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = CString::new(interface).map_err(io::Error::other)?;
    if name.as_bytes_with_nul().len() > request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG.into());
    }
    // C's `char` is signed on x86-64 only; names of interfaces are ASCII.
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = (*from).try_into().unwrap_or_default();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(io::Error::other)?;
    // SAFETY: the request is of this ioctl's type, with a name that ends.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    Errno::result(result)?;
    Ok(device)
}
