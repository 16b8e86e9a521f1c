//! What nft and iptables-nft write.

use std::io;

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    super::raw_netlink::{Ask, RawNetlink},
    ISTIO_IPTABLES, ISTIO_NFTABLES,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const GET_CHAIN: u16 = 10 << 8 | 4;
/// `struct nfgenmsg`: of every family.
const EVERY_FAMILY: [u8; 4] = [0; 4];
/// `NFTA_CHAIN_NAME`
const NAME: u16 = 3;

pub(super) fn has_chains() -> io::Result<bool> {
    let mut found = false;
    let mut look = |message: &[u8]| found |= name(message).is_some_and(is_istios);
    let asked = RawNetlink::open(SockProtocol::NetlinkNetFilter)
        .and_then(|netlink| netlink.ask(Ask::Dump, GET_CHAIN, &EVERY_FAMILY, &mut look));
    match asked {
        Ok(()) => Ok(found),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
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

fn name(message: &[u8]) -> Option<&[u8]> {
    let mut attributes = message.get(EVERY_FAMILY.len()..)?;
    while let [low, high, kind @ ..] = attributes
        && let Some(kind) = kind.first_chunk()
    {
        let size = usize::from(u16::from_ne_bytes([*low, *high]));
        let value = attributes.get(4..size)?;
        if u16::from_ne_bytes(*kind) == NAME {
            return Some(value);
        }
        attributes = attributes.get(size.next_multiple_of(4)..)?;
    }
    None
}
