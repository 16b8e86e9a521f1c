//! Reads what a call is about from the memory and the descriptors of its process.

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    os::{fd::RawFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use libc::{c_long, seccomp_notif};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
    unistd::Pid,
};
use socket2::{Domain, SockRef};

use super::{
    call::{Call, KINDS, Kind, Subject, bpf_command},
    seccomp,
};

/// The loader and the C library read these before the program starts.
const OF_LOADER: [&str; 4] = ["/etc/ld.so", "/lib/", "/lib64/", "/usr/lib/"];

/// The longest path that is read.
const MAX_PATH: usize = 512;
/// `struct nlmsghdr`: a length of four bytes, then the type.
const TYPE_OFFSET: usize = 4;
/// No netlink family has a message of this type, so that the kernel's response is an error.
const NO_TYPE: u16 = 0x7fff;

/// A call of a process that waits for a response.
pub(super) struct Notification {
    process: i32,
    data: seccomp_notif,
    kind: &'static Kind,
}

impl Notification {
    /// `process` is the ID of the process, in which `data` names a thread.
    pub(super) fn new(process: i32, data: seccomp_notif) -> Option<Self> {
        let kind = KINDS
            .iter()
            .find(|kind| kind.number == c_long::from(data.data.nr))?;
        Some(Self {
            process,
            data,
            kind,
        })
    }

    pub(super) const fn errno(&self) -> i32 {
        self.kind.errno
    }

    /// The call; `None` if it concerns neither `bpf(2)`, nor netlink, nor files.
    pub(super) fn call(&self) -> Option<Call> {
        let subject = match self.kind.subject {
            Subject::Bpf => Some(self.bpf()),
            Subject::Path(path) => self.path(path),
            Subject::PathAt(dir, path) => self.path_at(dir, path),
            Subject::File(fd) => self.file(fd),
            Subject::Lock(fd, operation) if self.fd(operation) != libc::LOCK_UN => self.file(fd),
            Subject::Lock(..) => None,
            Subject::Namespace(fd) => self.link(fd).filter(|link| is_namespace(link)),
            Subject::Netlink(fd) => self.is_netlink(fd).then(|| "netlink".to_owned()),
            Subject::Message(fd, buffer) => self.message(fd, buffer),
            Subject::Family(family) => self.family(family),
        }?;
        let is_of_loader = OF_LOADER.iter().any(|prefix| subject.starts_with(prefix));
        (!is_of_loader).then(|| Call::new(self.kind.name, &subject))
    }

    /// Replaces the type of a netlink message, so that the kernel's response is an error.
    pub(super) fn invalidate(&self) -> io::Result<()> {
        let Subject::Message(_, buffer) = self.kind.subject else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let remote = [RemoteIoVec {
            base: self.address(buffer) + TYPE_OFFSET,
            len: size_of_val(&NO_TYPE),
        }];
        process_vm_writev(self.pid(), &[IoSlice::new(&NO_TYPE.to_ne_bytes())], &remote)?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process)
    }

    const fn argument(&self, index: usize) -> u64 {
        self.data.data.args[index]
    }

    fn address(&self, index: usize) -> usize {
        usize::try_from(self.argument(index)).expect("an address")
    }

    /// A descriptor is an `int`, of which the register has more bits.
    fn fd(&self, index: usize) -> RawFd {
        let [a, b, c, d, ..] = self.argument(index).to_le_bytes();
        RawFd::from_le_bytes([a, b, c, d])
    }

    fn memory(&self, address: usize, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let remote = [RemoteIoVec {
            base: address,
            len: length,
        }];
        let mut local = [IoSliceMut::new(&mut bytes)];
        let read = process_vm_readv(self.pid(), &mut local, &remote).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    /// The text that ends with a zero byte. What follows may be on a page that does not exist.
    fn text(&self, address: usize) -> Option<Vec<u8>> {
        const PAGE: usize = 4096;
        let on_page = PAGE - address % PAGE;
        let mut bytes = self.memory(address, on_page.min(MAX_PATH))?;
        if !bytes.contains(&0) && on_page < MAX_PATH {
            bytes.extend(self.memory(address + on_page, MAX_PATH - on_page)?);
        }
        let end = bytes.iter().position(|byte| *byte == 0);
        bytes.truncate(end?);
        Some(bytes)
    }

    fn path(&self, index: usize) -> Option<String> {
        let text = self.text(self.address(index))?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn path_at(&self, dir: usize, path: usize) -> Option<String> {
        let text = self.text(self.address(path))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&text));
        if path.is_absolute() || self.fd(dir) == libc::AT_FDCWD {
            return Some(path.display().to_string());
        }
        let dir = self.link(dir)?;
        // Without a path, the descriptor itself is meant.
        let is_meant = path.as_os_str().is_empty();
        if is_meant {
            return is_file(&dir).then_some(dir);
        }
        Some(Path::new(&dir).join(path).display().to_string())
    }

    fn link(&self, index: usize) -> Option<String> {
        let link = format!("/proc/{}/fd/{}", self.process, self.fd(index));
        let link: PathBuf = fs::read_link(link).ok()?;
        Some(link.display().to_string())
    }

    fn file(&self, index: usize) -> Option<String> {
        self.link(index).filter(|link| is_file(link))
    }

    fn is_netlink(&self, index: usize) -> bool {
        let is_socket = |link: &String| link.starts_with("socket:");
        self.link(index).filter(is_socket).is_some_and(|_| {
            let socket = seccomp::descriptor_of(self.process, self.fd(index)).ok();
            let domain = socket.and_then(|socket| SockRef::from(&socket).domain().ok());
            domain == Some(Domain::from(libc::AF_NETLINK))
        })
    }

    fn message(&self, fd: usize, buffer: usize) -> Option<String> {
        if !self.is_netlink(fd) {
            return None;
        }
        let kind = self.memory(self.address(buffer) + TYPE_OFFSET, size_of::<u16>())?;
        let kind = u16::from_ne_bytes(kind.try_into().ok()?);
        Some(format!("netlink message {}", letters(kind)))
    }

    fn family(&self, index: usize) -> Option<String> {
        (self.fd(index) == libc::AF_NETLINK).then(|| "netlink".to_owned())
    }

    /// Pins have paths: `union bpf_attr` starts with a pointer to it.
    fn bpf(&self) -> String {
        let command = bpf_command(self.argument(0));
        if !command.starts_with("OBJ_PIN") && command != "OBJ_GET" {
            return command;
        }
        let pointer = self.memory(self.address(1), size_of::<usize>());
        let pointer = pointer.and_then(|bytes| Some(usize::from_ne_bytes(bytes.try_into().ok()?)));
        let path = pointer.and_then(|pointer| self.text(pointer));
        let path = path.unwrap_or_default();
        format!("{command} {}", String::from_utf8_lossy(&path))
    }
}

/// [`Call`] has no numbers.
fn letters(kind: u16) -> String {
    let digits = kind.to_string();
    digits
        .bytes()
        .map(|digit| char::from(digit - b'0' + b'G'))
        .collect()
}

fn is_file(link: &str) -> bool {
    link.starts_with('/') && !link.starts_with("/dev/") || link.starts_with("anon_inode:bpf")
}

fn is_namespace(link: &str) -> bool {
    link.starts_with("net:[") || link.starts_with("user:[") || link.contains("/netns/")
}
