//! The calls that can fail: `bpf(2)`, netlink, and files.

use std::fmt;

use libc::c_long;

/// What a call is about, and in which arguments that is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// A command of `bpf(2)`.
    Bpf,
    /// A path.
    Path(usize),
    /// A path that is relative to an open directory.
    PathAt(usize, usize),
    /// An open file, directory, or BPF iterator.
    File(usize),
    /// The same, and the operation of `flock(2)`: to unlock is not one that can fail.
    Lock(usize, usize),
    /// An open network namespace.
    Namespace(usize),
    /// An open netlink socket.
    Netlink(usize),
    /// The same, and the buffer with a message for it.
    Message(usize, usize),
    /// The family of a new socket.
    Family(usize),
}

/// A call that is reported to a [`super::Supervisor`].
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) number: c_long,
    pub(super) name: &'static str,
    pub(super) subject: Subject,
    /// What it fails with: an errno that the call has at any time, whatever its arguments.
    pub(super) errno: i32,
}

macro_rules! kinds {
    ($($(#[$attribute:meta])* $number:ident $subject:expr, $errno:ident;)*) => {
        pub(super) const KINDS: &[Kind] = &[$($(#[$attribute])* Kind {
            number: libc::$number,
            name: stringify!($number),
            subject: $subject,
            errno: libc::$errno,
        },)*];
        /// The numbers of all [`KINDS`].
        pub(super) const NUMBERS: &[c_long] = &[$($(#[$attribute])* libc::$number,)*];
    };
}

kinds! {
    SYS_bpf Subject::Bpf, ENOMEM;
    SYS_socket Subject::Family(0), EMFILE;
    SYS_bind Subject::Netlink(0), ENOMEM;
    SYS_setsockopt Subject::Netlink(0), ENOMEM;
    SYS_getsockname Subject::Netlink(0), ENOBUFS;
    SYS_sendto Subject::Message(0, 1), ENOBUFS;
    SYS_recvfrom Subject::Netlink(0), ENOBUFS;
    SYS_recvmsg Subject::Netlink(0), ENOBUFS;
    SYS_setns Subject::Namespace(0), ENOMEM;
    SYS_mount Subject::Path(1), ENOMEM;
    SYS_statfs Subject::Path(0), EIO;
    SYS_fstatfs Subject::File(0), EIO;
    SYS_statx Subject::PathAt(0, 1), EIO;
    SYS_newfstatat Subject::PathAt(0, 1), EIO;
    SYS_faccessat Subject::PathAt(0, 1), EIO;
    SYS_faccessat2 Subject::PathAt(0, 1), EIO;
    SYS_readlinkat Subject::PathAt(0, 1), EIO;
    SYS_openat Subject::PathAt(0, 1), EMFILE;
    SYS_openat2 Subject::PathAt(0, 1), EMFILE;
    SYS_read Subject::File(0), EIO;
    SYS_pread64 Subject::File(0), EIO;
    SYS_write Subject::File(0), ENOSPC;
    SYS_pwrite64 Subject::File(0), ENOSPC;
    SYS_getdents64 Subject::File(0), EIO;
    SYS_flock Subject::Lock(0, 1), ENOLCK;
    SYS_fsync Subject::File(0), EIO;
    SYS_fdatasync Subject::File(0), EIO;
    SYS_ftruncate Subject::File(0), EIO;
    SYS_fchmod Subject::File(0), EIO;
    SYS_fchmodat Subject::PathAt(0, 1), EIO;
    SYS_ioctl Subject::Namespace(0), ENOMEM;
    SYS_mkdirat Subject::PathAt(0, 1), ENOSPC;
    SYS_linkat Subject::PathAt(2, 3), ENOSPC;
    SYS_symlinkat Subject::PathAt(1, 2), ENOSPC;
    SYS_unlinkat Subject::PathAt(0, 1), EIO;
    SYS_renameat2 Subject::PathAt(2, 3), ENOSPC;
    SYS_name_to_handle_at Subject::PathAt(0, 1), ENOMEM;
    SYS_inotify_add_watch Subject::Path(1), ENOSPC;
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir Subject::Path(0), ENOSPC;
    #[cfg(target_arch = "x86_64")]
    SYS_rmdir Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_unlink Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_rename Subject::Path(1), ENOSPC;
    #[cfg(target_arch = "x86_64")]
    SYS_symlink Subject::Path(1), ENOSPC;
    #[cfg(target_arch = "x86_64")]
    SYS_link Subject::Path(1), ENOSPC;
    #[cfg(target_arch = "x86_64")]
    SYS_readlink Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_chmod Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_access Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_stat Subject::Path(0), EIO;
    #[cfg(target_arch = "x86_64")]
    SYS_lstat Subject::Path(0), EIO;
}

/// The commands of `bpf(2)` in the order of their numbers (`enum bpf_cmd`, Linux 6.1).
const BPF_COMMANDS: [&str; 37] = [
    "MAP_CREATE",
    "MAP_LOOKUP_ELEM",
    "MAP_UPDATE_ELEM",
    "MAP_DELETE_ELEM",
    "MAP_GET_NEXT_KEY",
    "PROG_LOAD",
    "OBJ_PIN",
    "OBJ_GET",
    "PROG_ATTACH",
    "PROG_DETACH",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "RAW_TRACEPOINT_OPEN",
    "BTF_LOAD",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "MAP_LOOKUP_AND_DELETE_ELEM",
    "MAP_FREEZE",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "MAP_LOOKUP_AND_DELETE_BATCH",
    "MAP_UPDATE_BATCH",
    "MAP_DELETE_BATCH",
    "LINK_CREATE",
    "LINK_UPDATE",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ENABLE_STATS",
    "ITER_CREATE",
    "LINK_DETACH",
    "PROG_BIND_MAP",
    "TOKEN_CREATE",
];

/// The command with this number.
pub(super) fn bpf_command(number: u64) -> String {
    let name = usize::try_from(number)
        .ok()
        .and_then(|number| BPF_COMMANDS.get(number));
    name.map_or_else(|| format!("command {number}"), |name| (*name).to_owned())
}

/// A call that can fail, without what differs between two runs of a command: numbers and IDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The name of the system call.
    pub name: &'static str,
    /// The command of `bpf(2)`, the path, or the netlink message.
    pub subject: String,
}

impl Call {
    pub(super) fn new(name: &'static str, subject: &str) -> Self {
        let name = name.strip_prefix("SYS_").unwrap_or(name);
        Self {
            name,
            subject: without_numbers(subject),
        }
    }

    /// Whether the kernel responds to it.
    pub(super) fn is_message(&self) -> bool {
        self.subject.starts_with("netlink message")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.subject)
    }
}

/// The shortest word of hexadecimal digits that is an ID although it has letters only.
const ID_LENGTH: usize = 8;

/// Replaces numbers and hexadecimal IDs.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(['\0']) {
        if matches!(letter, '0'..='9' | 'a'..='f') {
            word.push(letter);
            continue;
        }
        let is_number =
            word.len() >= ID_LENGTH || word.contains(|letter: char| letter.is_numeric());
        result.push_str(if is_number { "#" } else { &word });
        result.push(letter);
        word.clear();
    }
    result.pop();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_have_the_same_calls() {
        for (text, same) in [
            ("/proc/4711/ns/net", "/proc/#/ns/net"),
            ("maps/icept_next-1a2b3c4d", "maps/icept_next-#"),
            (
                "/sys/fs/bpf/interceptor/v1/netns/17",
                "/sys/fs/bpf/interceptor/v#/netns/#",
            ),
            ("OBJ_GET", "OBJ_GET"),
        ] {
            assert_eq!(without_numbers(text), same);
        }
    }
}
