//! The system calls that no library wraps.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

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
