//! What iptables-legacy writes.

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{
    super::{raw_netlink::number, sys},
    ISTIO_IPTABLES,
};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; IPv6's have the same numbers.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`, and where in it the entries' size is.
const INFO: usize = 84;
const INFO_SIZE: usize = 80;
/// `struct ipt_get_entries` before the entries, and where in it their size is.
const ENTRIES: usize = 40;
const ENTRIES_SIZE: usize = 32;

/// How often a table is read that changes meanwhile.
const TRIES: u32 = 10;

/// A protocol's tables.
struct Tables {
    family: AddressFamily,
    level: i32,
    /// Those that are there: to ask for another would make it.
    names: &'static str,
}

const V4: Tables = Tables {
    family: AddressFamily::Inet,
    level: libc::SOL_IP,
    names: "/proc/thread-self/net/ip_tables_names",
};
const V6: Tables = Tables {
    family: AddressFamily::Inet6,
    level: libc::SOL_IPV6,
    names: "/proc/thread-self/net/ip6_tables_names",
};

pub(super) fn has_chains() -> io::Result<bool> {
    Ok(V4.have_chains()? || V6.have_chains()?)
}

impl Tables {
    fn have_chains(&self) -> io::Result<bool> {
        let names = match fs::read_to_string(self.names) {
            // A kernel without them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            names => names?,
        };
        for name in names.lines() {
            let entries = self.entries(name.as_bytes())?;
            // A chain's name stands before its rules, after its revision, which is 0
            // (`struct xt_error_target`).
            let is_name = |word: &[u8]| word.strip_prefix(&[0]) == Some(ISTIO_IPTABLES);
            if entries.windows(1 + ISTIO_IPTABLES.len()).any(is_name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn entries(&self, table: &[u8]) -> io::Result<Vec<u8>> {
        let mut tries = 1..TRIES;
        loop {
            match self.entries_now(table) {
                Err(error) if has_changed(&error) && tries.next().is_some() => {}
                entries => return entries,
            }
        }
    }

    /// A table's chains and rules, as the kernel lays them out.
    fn entries_now(&self, table: &[u8]) -> io::Result<Vec<u8>> {
        let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
        let socket = socket(self.family, kind, flags, None)?;
        let mut info = vec![0; INFO];
        info[..table.len()].copy_from_slice(table);
        sys::option(&socket, self.level, GET_INFO, &mut info)?;
        let size = number(&info, INFO_SIZE).ok_or(io::ErrorKind::InvalidData)?;
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let mut entries = vec![0; ENTRIES + length];
        entries[..table.len()].copy_from_slice(table);
        entries[ENTRIES_SIZE..][..4].copy_from_slice(&size.to_ne_bytes());
        sys::option(&socket, self.level, GET_ENTRIES, &mut entries)?;
        Ok(entries)
    }
}

/// Between the two questions (`get_entries`).
fn has_changed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAGAIN as i32)
}
