//! Chains that iptables-legacy creates.

use std::{collections::BTreeSet, fs, io};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{super::sys, Chain, Effect, ISTIO_IPTABLES};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; IPv6's have the same numbers.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// The size of `struct ipt_getinfo`, and the offsets in it of the chains' first and last entries (their
/// policies), by hook, and of the entries' size.
const INFO: usize = 84;
const INFO_FIRST: usize = 36;
const INFO_LAST: usize = 56;
const INFO_SIZE: usize = 80;
/// The size of `struct ipt_get_entries` before the entries, and the offset in it of their size.
const ENTRIES: usize = 40;
const ENTRIES_SIZE: usize = 32;

/// The offset of the verdict in the last entry's target (`struct xt_standard_target`), and the verdict
/// of the policy DROP: `-NF_DROP - 1`.
const VERDICT: usize = 32;
const DROP: i32 = -1;

/// Attempts to read a table that changes during the read.
const MAX_ATTEMPTS: u32 = 10;

/// A protocol's tables.
struct Tables {
    family: AddressFamily,
    level: i32,
    /// Lists the existing tables: reading another would create it.
    names: &'static str,
    /// nft's name of the family.
    family_name: &'static str,
    /// The offset in `struct ipt_entry` or `ip6t_entry` of the offset of its target.
    target_offset: usize,
}

const V4: Tables = Tables {
    family: AddressFamily::Inet,
    level: libc::SOL_IP,
    names: "/proc/thread-self/net/ip_tables_names",
    family_name: "ip",
    target_offset: 88,
};
const V6: Tables = Tables {
    family: AddressFamily::Inet6,
    level: libc::SOL_IPV6,
    names: "/proc/thread-self/net/ip6_tables_names",
    family_name: "ip6",
    target_offset: 140,
};

pub(super) fn has_chains() -> io::Result<bool> {
    Ok(V4.have_chains()? || V6.have_chains()?)
}

/// Adds the chains that affect captured connections.
pub(super) fn add_chains(chains: &mut BTreeSet<Chain>) -> io::Result<()> {
    V4.add_chains(chains)?;
    V6.add_chains(chains)
}

/// A table in the kernel's layout.
struct Table {
    info: Vec<u8>,
    /// With a header.
    entries: Vec<u8>,
}

impl Table {
    /// Whether a chain has a rule.
    fn has_rules(&self, hook: usize) -> bool {
        number(&self.info, INFO_FIRST + 4 * hook) != number(&self.info, INFO_LAST + 4 * hook)
    }

    /// Whether a chain drops what no rule accepts.
    fn drops(&self, hook: usize, target_offset: usize) -> bool {
        let verdict = || {
            let last = number(&self.info, INFO_LAST + 4 * hook)?;
            let last = self.entries.get(ENTRIES + usize::try_from(last).ok()?..)?;
            let target = last.get(target_offset..)?.first_chunk()?;
            number(last, usize::from(u16::from_ne_bytes(*target)) + VERDICT)
        };
        verdict().map(u32::cast_signed) == Some(DROP)
    }
}

impl Tables {
    fn add_chains(&self, chains: &mut BTreeSet<Chain>) -> io::Result<()> {
        const HOOKS: [(usize, &str); 2] = [
            (libc::NF_INET_LOCAL_IN as usize, "INPUT"),
            (libc::NF_INET_LOCAL_OUT as usize, "OUTPUT"),
        ];
        for table in self.names()?.lines() {
            let chain = |name: &str, effect| Chain {
                family: self.family_name,
                table: table.to_owned(),
                name: name.to_owned(),
                effect,
            };
            let read = self.table(table.as_bytes())?;
            match table {
                "filter" => chains.extend(
                    HOOKS
                        .iter()
                        .filter(|(hook, _)| read.drops(*hook, self.target_offset))
                        .map(|(_, name)| chain(name, Effect::Drops)),
                ),
                "nat" if read.has_rules(libc::NF_INET_LOCAL_OUT as usize) => {
                    chains.insert(chain("OUTPUT", Effect::Rewrites));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One per line.
    fn names(&self) -> io::Result<String> {
        match fs::read_to_string(self.names) {
            // A kernel without ip_tables.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            names => names,
        }
    }

    fn have_chains(&self) -> io::Result<bool> {
        for name in self.names()?.lines() {
            let Table { entries, .. } = self.table(name.as_bytes())?;
            // A chain's name precedes its rules and follows its revision, which is 0
            // (`struct xt_error_target`).
            let is_name = |word: &[u8]| word.strip_prefix(&[0]) == Some(ISTIO_IPTABLES);
            if entries.windows(1 + ISTIO_IPTABLES.len()).any(is_name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn table(&self, name: &[u8]) -> io::Result<Table> {
        let mut attempts = 1..MAX_ATTEMPTS;
        loop {
            match self.table_now(name) {
                Err(error) if has_changed(&error) && attempts.next().is_some() => {}
                table => return table,
            }
        }
    }

    fn table_now(&self, table: &[u8]) -> io::Result<Table> {
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
        Ok(Table { info, entries })
    }
}

/// Whether the table has changed between the two calls (`get_entries`).
fn has_changed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAGAIN as i32)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}
