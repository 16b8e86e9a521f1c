//! Chains that nft and iptables-nft create.
//!
//! `netlink-packet-netfilter` would decode these messages, but fails for a whole chain or rule if one
//! of its attributes or expressions is unknown, and a chain that is not read is one that is not
//! reported. It also decodes all expressions of all rules, of which only the names of table and
//! chain are needed, and brings a second `derive_more`.

use std::{collections::BTreeSet, io};

use nix::errno::Errno;
use rtnetlink::{packet_core::NlasIterator, sys::protocols::NETLINK_NETFILTER};

use super::{super::raw_netlink::RawNetlink, Chain, Effect, ISTIO_IPTABLES, ISTIO_NFTABLES};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`
const GET_RULE: u16 = 10 << 8 | 7;
/// `struct nfgenmsg`: all families.
const EVERY_FAMILY: [u8; 4] = [0; 4];
/// `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE`
const TABLE: u16 = 1;
/// `NFTA_RULE_CHAIN`
const RULE_CHAIN: u16 = 2;
/// `NFTA_CHAIN_NAME`
const NAME: u16 = 3;
/// `NFTA_CHAIN_HOOK` of base chains, and `NFTA_HOOK_HOOKNUM` in it.
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
        found |= name(message, NAME).is_some_and(|name| is_istio(&name));
    })?;
    Ok(found)
}

/// Adds the chains that affect captured connections.
pub(super) fn add_chains(chains: &mut BTreeSet<Chain>) -> io::Result<()> {
    let mut rewriting = BTreeSet::new();
    dump(GET_CHAIN, &mut |message| match read_chain(message) {
        Some(chain) if chain.effect == Effect::Drops => drop(chains.insert(chain)),
        Some(chain) => drop(rewriting.insert(chain)),
        None => {}
    })?;
    if rewriting.is_empty() {
        return Ok(());
    }
    // A chain without a rule rewrites nothing: iptables-nft creates it with its table.
    dump(GET_RULE, &mut |message| {
        let rule = (
            family(message),
            name(message, TABLE),
            name(message, RULE_CHAIN),
        );
        let contains_rule = |chain: &&Chain| {
            let (table, name) = (chain.table.clone().into(), chain.name.clone().into());
            rule == (Some(chain.family), Some(table), Some(name))
        };
        chains.extend(rewriting.iter().find(contains_rule).cloned());
    })
}

/// A chain that drops TCP, or may rewrite outgoing TCP.
pub(in crate::netns) fn read_chain(message: &[u8]) -> Option<Chain> {
    let attributes = message.get(EVERY_FAMILY.len()..)?;
    let hook = attribute(&attribute(attributes, HOOK)?, HOOK_NUMBER)?;
    let hook = i32::from_be_bytes(hook.try_into().ok()?);
    let drops = attribute(attributes, POLICY).as_deref() == Some(&DROP.to_be_bytes());
    let effect = match (name(message, TYPE)?.as_slice(), hook) {
        (b"filter", libc::NF_INET_LOCAL_IN | libc::NF_INET_LOCAL_OUT) if drops => Effect::Drops,
        (b"nat", libc::NF_INET_LOCAL_OUT) => Effect::Rewrites,
        _ => return None,
    };
    let text = |kind| Some(String::from_utf8_lossy(&name(message, kind)?).into_owned());
    Some(Chain {
        family: family(message)?,
        table: text(TABLE)?,
        name: text(NAME)?,
        effect,
    })
}

/// nft's name of a family that includes TCP.
fn family(message: &[u8]) -> Option<&'static str> {
    match i32::from(*message.first()?) {
        libc::NFPROTO_INET => Some("inet"),
        libc::NFPROTO_IPV4 => Some("ip"),
        libc::NFPROTO_IPV6 => Some("ip6"),
        _ => None,
    }
}

/// Dumps all objects of a kind: none on a kernel without nftables.
fn dump(kind: u16, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let result = RawNetlink::open(NETLINK_NETFILTER)
        .and_then(|netlink| netlink.dump(kind, &EVERY_FAMILY, each));
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        result => result,
    }
}

fn is_istio(name: &[u8]) -> bool {
    name.starts_with(ISTIO_IPTABLES) || name.starts_with(ISTIO_NFTABLES)
}

/// A kernel without nfnetlink, or without `nf_tables` (`nfnetlink_rcv_msg`).
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::EPROTONOSUPPORT, Errno::EINVAL].map(|errno| Some(errno as i32));
    absent.contains(&error.raw_os_error())
}

/// A name, without the zero at its end.
fn name(message: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut name = attribute(message.get(EVERY_FAMILY.len()..)?, kind)?;
    name.pop_if(|last| *last == 0);
    Some(name)
}

fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(attributes).filter_map(Result::ok);
    let attribute = attributes.find(|attribute| attribute.kind() == kind)?;
    Some(attribute.value().to_vec())
}
