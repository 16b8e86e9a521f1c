//! The kernel's BPF, for tests to inspect and modify: through `bpf(2)` directly, so that the tests
//! share no code with the product.

pub mod calls;
pub mod maps;
pub mod pins;
pub mod programs;
pub mod sockmap;
pub mod stats;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Attributes of a `bpf(2)` command.
///
/// # Safety
///
/// Plain numbers in the kernel's layout; those that are addresses point to memory that has the size
/// which the kernel expects and outlives the value.
unsafe trait Attributes {}

/// Calls `bpf(2)`.
fn bpf(command: u32, attributes: &mut impl Attributes) -> io::Result<RawFd> {
    let size = size_of_val(attributes);
    // SAFETY: the contract of `Attributes`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command),
            std::ptr::from_mut(attributes),
            size,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// The same, for commands that return a new file descriptor.
fn bpf_fd(command: u32, attributes: &mut impl Attributes) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

fn address<T>(memory: &mut [T]) -> u64 {
    memory.as_mut_ptr() as u64
}

#[repr(C)]
#[derive(Default)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

// SAFETY: a string that ends with a zero byte.
unsafe impl Attributes for ObjGet {}

const OBJ_GET: u32 = 7;

/// Opens the object that is pinned at `path`.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjGet {
        path: path.as_ptr() as u64,
        ..ObjGet::default()
    };
    bpf_fd(OBJ_GET, &mut attributes)
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

// SAFETY: created by `info` only, with a buffer of this length.
unsafe impl Attributes for InfoByFd {}

const OBJ_GET_INFO_BY_FD: u32 = 15;

/// The kernel's information about an object, as 64-bit words.
fn info(object: &OwnedFd) -> io::Result<[u64; 32]> {
    let mut words = [0; 32];
    let mut attributes = InfoByFd {
        fd: number(object),
        length: u32::try_from(size_of_val(&words)).map_err(io::Error::other)?,
        info: address(&mut words),
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(words)
}
