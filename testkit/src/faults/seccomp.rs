//! The filter, as in `seccomp(2)` and `seccomp_unotify(2)`.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use libc::{c_long, seccomp_data, seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn instruction(code: u32, jump_if_true: usize, operand: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("a small number"),
        jt: u8::try_from(jump_if_true).expect("a short filter"),
        jf: 0,
        k: operand,
    }
}

/// Reports the calls with these numbers, and permits all others.
fn filter(numbers: &[c_long]) -> Vec<sock_filter> {
    let offset = u32::try_from(mem::offset_of!(seccomp_data, nr)).expect("a small type");
    let count = numbers.len();
    let compared = numbers.iter().enumerate().map(|(index, number)| {
        let number = u32::try_from(*number).expect("the number of a call");
        instruction(JUMP_IF_EQUAL, count - index, number)
    });
    let mut filter = vec![instruction(LOAD, 0, offset)];
    filter.extend(compared);
    filter.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(instruction(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF));
    filter
}

/// Installs a filter of these calls for this process. Returns its listener.
///
/// A call that has been reported waits for its response even if a signal arrives: otherwise it would
/// start again, and be reported twice (Linux 5.19).
pub(super) fn install(numbers: &[c_long]) -> io::Result<OwnedFd> {
    let mut filter = filter(numbers);
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel copies the program, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    created(result)
}

mod ioctl {
    use libc::{seccomp_notif, seccomp_notif_resp};

    nix::ioctl_readwrite!(receive, b'!', 0, seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, seccomp_notif_resp);
}

/// Waits for the next call. `None` if the process was killed in the meantime.
pub(super) fn receive(listener: &OwnedFd) -> io::Result<Option<seccomp_notif>> {
    // SAFETY: plain numbers, for which zero is valid; the kernel requires zeros.
    let mut call: seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes no more than this type.
    match unsafe { ioctl::receive(listener.as_raw_fd(), &raw mut call) } {
        Ok(_) => Ok(Some(call)),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets the call continue, or fails it with an errno.
pub(super) fn respond(listener: &OwnedFd, call: u64, errno: Option<i32>) -> io::Result<()> {
    let continued = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE);
    let mut response = seccomp_notif_resp {
        id: call,
        val: 0,
        error: errno.map_or(0, |errno| -errno),
        flags: match errno {
            Some(_) => 0,
            None => continued.map_err(io::Error::other)?,
        },
    };
    // SAFETY: the kernel reads no more than this type.
    match unsafe { ioctl::send(listener.as_raw_fd(), &raw mut response) } {
        // The process was killed.
        Ok(_) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A copy of a descriptor of another process.
pub(super) fn descriptor_of(pid: i32, fd: RawFd) -> io::Result<OwnedFd> {
    let process = new_descriptor(libc::SYS_pidfd_open, [pid, 0, 0])?;
    new_descriptor(libc::SYS_pidfd_getfd, [process.as_raw_fd(), fd, 0])
}

fn new_descriptor(number: c_long, [first, second, third]: [i32; 3]) -> io::Result<OwnedFd> {
    // SAFETY: these calls have numbers only, and no pointers.
    let result = unsafe { libc::syscall(number, first, second, third) };
    created(result)
}

/// The descriptor that a call has just created, or its error.
fn created(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
