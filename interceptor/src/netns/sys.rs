//! Questions about namespaces that no library asks.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use interceptor_ebpf::NetnsCookie;

/// `NS_GET_NSTYPE` (`ioctl_nsfs(2)`): which kind of namespace a file stands for, as its
/// `CLONE_NEW…` flag.
pub(super) fn namespace_kind(file: &impl AsFd) -> nix::Result<i32> {
    nix::ioctl_none_bad!(get_nstype, nix::request_code_none!(0xb7, 3));
    // SAFETY: the request takes no argument.
    unsafe { get_nstype(file.as_fd().as_raw_fd()) }
}

/// `NS_GET_USERNS` (`ioctl_nsfs(2)`): the user namespace that a namespace belongs to.
pub(super) fn owning_user_namespace(file: &impl AsFd) -> nix::Result<OwnedFd> {
    nix::ioctl_none_bad!(get_userns, nix::request_code_none!(0xb7, 1));
    // SAFETY: the request takes no argument, and what it returns is a new descriptor of ours.
    unsafe {
        let fd = get_userns(file.as_fd().as_raw_fd())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// `SO_NETNS_COOKIE`: the cookie of the network namespace that a socket belongs to.
///
/// # Minimum kernel version
///
/// 5.14
pub(super) fn netns_cookie(socket: &impl AsFd) -> io::Result<NetnsCookie> {
    let mut cookie: NetnsCookie = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).expect("a small type");
    // SAFETY: the kernel writes at most `length` bytes, which is what `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
