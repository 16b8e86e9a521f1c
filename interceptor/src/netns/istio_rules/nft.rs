//! What nft and iptables-nft write.

use std::{collections::BTreeSet, io};

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    super::raw_netlink::{Ask, RawNetlink},
    Chain, ISTIO_IPTABLES, ISTIO_NFTABLES, Matters,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `struct nfgenmsg`: of every family.
const EVERY_FAMILY: [u8; 4] = [0; 4];
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`
const GET_RULE: u16 = 10 << 8 | 7;
/// `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`
const TABLE: u16 = 1;
/// `NFTA_RULE_CHAIN`
const RULE_CHAIN: u16 = 2;
/// `NFTA_CHAIN_NAME`
const NAME: u16 = 3;
/// `NFTA_CHAIN_HOOK`, of chains that the kernel calls, and `NFTA_HOOK_HOOKNUM` in it.
const HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
/// `NFTA_CHAIN_POLICY`
const POLICY: u16 = 5;
/// `NFTA_CHAIN_TYPE`
const TYPE: u16 = 7;

/// `NF_DROP`
const DROP: u32 = 0;

pub(super) fn has_chains() -> io::Result<bool> {
    let mut found = false;
    dump(GET_CHAIN, &mut |message| {
        found |= name(message, NAME).is_some_and(is_istios);
    })?;
    Ok(found)
}

/// Adds them to `chains`.
pub(super) fn chains_that_matter(chains: &mut BTreeSet<Chain>) -> io::Result<()> {
    let mut rewriting = BTreeSet::new();
    dump(GET_CHAIN, &mut |message| match read_chain(message) {
        Some(chain) if chain.matters == Matters::Drops => drop(chains.insert(chain)),
        Some(chain) => drop(rewriting.insert(chain)),
        None => {}
    })?;
    if rewriting.is_empty() {
        return Ok(());
    }
    // Without a rule it rewrites nothing: iptables-nft makes it with its table.
    dump(GET_RULE, &mut |message| {
        let rule = (
            family(message),
            name(message, TABLE),
            name(message, RULE_CHAIN),
        );
        let is_its = |chain: &&Chain| {
            let (table, name) = (chain.table.as_bytes(), chain.name.as_bytes());
            rule == (Some(chain.family), Some(table), Some(name))
        };
        chains.extend(rewriting.iter().find(is_its).cloned());
    })
}

/// A chain that drops TCP, or may rewrite it as it goes out.
fn read_chain(message: &[u8]) -> Option<Chain> {
    let hook = attribute(
        attribute(message.get(EVERY_FAMILY.len()..)?, HOOK)?,
        HOOK_NUMBER,
    )?;
    let hook = i32::from_be_bytes(hook.try_into().ok()?);
    let policy = attribute(message.get(EVERY_FAMILY.len()..)?, POLICY);
    let drops = policy == Some(&DROP.to_be_bytes());
    let matters = match (name(message, TYPE)?, hook) {
        (b"filter", libc::NF_INET_LOCAL_IN | libc::NF_INET_LOCAL_OUT) if drops => Matters::Drops,
        (b"nat", libc::NF_INET_LOCAL_OUT) => Matters::Rewrites,
        _ => return None,
    };
    let text = |kind| Some(String::from_utf8_lossy(name(message, kind)?).into_owned());
    Some(Chain {
        family: family(message)?,
        table: text(TABLE)?,
        name: text(NAME)?,
        matters,
    })
}

/// A family in which there is TCP, by nft's name for it.
fn family(message: &[u8]) -> Option<&'static str> {
    match i32::from(*message.first()?) {
        libc::NFPROTO_INET => Some("inet"),
        libc::NFPROTO_IPV4 => Some("ip"),
        libc::NFPROTO_IPV6 => Some("ip6"),
        _ => None,
    }
}

/// Asks for all of a kind. A kernel without nftables has none.
fn dump(kind: u16, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let asked = RawNetlink::open(SockProtocol::NetlinkNetFilter)
        .and_then(|netlink| netlink.ask(Ask::Dump, kind, &EVERY_FAMILY, each));
    match asked {
        Err(error) if is_absent(&error) => Ok(()),
        asked => asked,
    }
}

fn is_istios(name: &[u8]) -> bool {
    name.starts_with(ISTIO_IPTABLES) || name.starts_with(ISTIO_NFTABLES)
}

/// A kernel without nfnetlink, or without `nf_tables` (`nfnetlink_rcv_msg`).
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::EPROTONOSUPPORT, Errno::EINVAL].map(|errno| Some(errno as i32));
    absent.contains(&error.raw_os_error())
}

/// An attribute that is a name, without the zero at its end.
fn name(message: &[u8], kind: u16) -> Option<&[u8]> {
    let value = attribute(message.get(EVERY_FAMILY.len()..)?, kind)?;
    Some(value.strip_suffix(&[0]).unwrap_or(value))
}

fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// `NLA_TYPE_MASK`: without the flags.
    const KIND: u16 = 0x3fff;

    while let [low, high, kind @ ..] = attributes
        && let Some(kind) = kind.first_chunk()
    {
        let size = usize::from(u16::from_ne_bytes([*low, *high]));
        let value = attributes.get(4..size)?;
        if u16::from_ne_bytes(*kind) & KIND == wanted {
            return Some(value);
        }
        attributes = attributes.get(size.next_multiple_of(4)..)?;
    }
    None
}
