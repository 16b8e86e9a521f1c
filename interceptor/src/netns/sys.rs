//! System calls for namespaces that no library wraps.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_ebpf::NetnsCookie;
use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, getpid, getppid, pause, pipe2, read, write},
};

/// `NS_GET_NSTYPE` (`ioctl_nsfs(2)`): the kind of a namespace, as its `CLONE_NEW…` flag.
pub(super) fn namespace_kind(file: &impl AsFd) -> nix::Result<i32> {
    nix::ioctl_none_bad!(get_nstype, nix::request_code_none!(0xb7, 3));
    // SAFETY: the request has no argument.
    unsafe { get_nstype(file.as_fd().as_raw_fd()) }
}

/// `NS_GET_USERNS` (`ioctl_nsfs(2)`): the user namespace that a namespace belongs to.
pub(super) fn owning_user_namespace(file: &impl AsFd) -> nix::Result<OwnedFd> {
    nix::ioctl_none_bad!(get_userns, nix::request_code_none!(0xb7, 1));
    // SAFETY: the request has no argument, and returns a new descriptor that nothing else owns.
    unsafe {
        let fd = get_userns(file.as_fd().as_raw_fd())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A sleeping process in another user namespace, killed when dropped.
pub(super) struct Resident {
    pid: Pid,
}

impl Resident {
    pub(super) const fn id(&self) -> i32 {
        self.pid.as_raw()
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _killed = kill(self.pid, Signal::SIGKILL);
        let _waited = waitpid(self.pid, None);
    }
}

/// Starts a process in a user namespace: only a process with one thread can enter a user namespace, and
/// this process may have more.
pub(super) fn process_in_user_namespace(namespace: &impl AsFd) -> Result<Resident> {
    let (mut entered_read, entered_write) = pipe2(OFlag::O_CLOEXEC)?;
    let parent = getpid();
    // SAFETY: the child makes system calls only, and allocates nothing.
    let pid = match unsafe { fork()? } {
        ForkResult::Parent { child } => child,
        ForkResult::Child => reside(namespace, &entered_write, parent),
    };
    let resident = Resident { pid };
    drop(entered_write);
    let mut entered = [0];
    let length = read(&mut entered_read, &mut entered)
        .context("the process in the user namespace has exited")?;
    ensure!(length == 1, "setns(CLONE_NEWUSER) failed");
    Ok(resident)
}

/// The child: signals that it has entered, then sleeps until it is killed, also with its parent.
fn reside(namespace: &impl AsFd, entered_write: &OwnedFd, parent: Pid) -> ! {
    let dies_with_parent = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let entered = setns(namespace, CloneFlags::CLONE_NEWUSER);
    // Again, because the change of credentials has reset it (`commit_creds`).
    let dies_with_parent = dies_with_parent.and(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL));
    // A parent that exited before sends no signal: the child then has another parent.
    let has_parent = getppid() == parent;
    if has_parent && dies_with_parent.and(entered).is_ok() && write(entered_write, &[1]).is_ok() {
        pause();
    }
    // SAFETY: exits at once, and runs none of the parent's code.
    unsafe { libc::_exit(1) }
}

/// `SO_NETNS_COOKIE`: the cookie of the network namespace that a socket belongs to.
///
/// # Minimum kernel version
///
/// 5.14
pub(super) fn netns_cookie(socket: &impl AsFd) -> io::Result<NetnsCookie> {
    let mut cookie = NetnsCookie::default().to_ne_bytes();
    option(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut cookie)?;
    Ok(NetnsCookie::from_ne_bytes(cookie))
}

/// `getsockopt(2)`: `buffer` is also input for some options.
pub(super) fn option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes at most `length` bytes, the length of `buffer`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
