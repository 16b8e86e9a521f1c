//! The addresses of a network namespace.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use interceptor_ebpf::Address;
use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol,
};
use nix::errno::Errno;
use rtnetlink::Handle;

use super::{netlink::errno, tables};

/// `lo`, in every network namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// An address and the interface that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// The address with its prefix length.
    pub net: IpNet,
    /// The interface's index.
    pub interface: u32,
}

/// All addresses, in the kernel's order: IPv4 first, and those of one interface together.
pub(crate) async fn list(netlink: &Handle) -> Result<Vec<PodAddress>> {
    let messages: Vec<_> = netlink
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .context("cannot list the addresses")?;
    Ok(messages.iter().filter_map(address).collect())
}

pub(super) fn address(message: &AddressMessage) -> Option<PodAddress> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // On a point-to-point interface IFA_ADDRESS is the peer's, IFA_LOCAL the own.
    let address = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some(PodAddress {
        net: IpNet::new(address, message.header.prefix_len).ok()?,
        interface: message.header.index,
    })
}

/// Whether istio-iptables would write rules for IPv6 (`getLocalIP`): if the pod's first address is
/// an IPv6 one, or, with `--dual-stack`, any. Loopback and link-local addresses do not count.
pub(crate) fn captures_ipv6(addresses: &[PodAddress], dual_stack: bool) -> Result<bool> {
    let first = first(addresses)?;
    Ok(first.is_ipv6() || (dual_stack && usable(addresses).any(|address| address.is_ipv6())))
}

/// The pod's first address; loopback and link-local ones do not count.
pub(crate) fn first(addresses: &[PodAddress]) -> Result<IpAddr> {
    usable(addresses).next().context(
        "no valid local IP address found: the network namespace has only loopback and link-local \
         addresses; attach when its network is set up",
    )
}

fn usable(addresses: &[PodAddress]) -> impl Iterator<Item = IpAddr> {
    addresses
        .iter()
        .map(|address| address.net.addr())
        .filter(|address| !is_local_scope(*address))
}

fn is_local_scope(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// Marks the address that is ours, as [`super::stand_in_routes`] marks routes (Linux 5.18).
const PROTOCOL: AddressProtocol = AddressProtocol::Other(153);

/// How often, and at which interval, a new address is checked for its local route.
const MAX_POLLS: u32 = 5_000;
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Adds `::6/128` to `lo`, unless it exists, as istio-iptables does: Envoy's inbound passthrough binds
/// to it.
pub(crate) async fn add_passthrough_v6(netlink: &Handle) -> Result<()> {
    let ours = IpAddr::from(Address::PASSTHROUGH_V6);
    let mut request = netlink.address().add(LOOPBACK_INDEX, ours, 128);
    let attributes = &mut request.message_mut().attributes;
    attributes.push(AddressAttribute::Protocol(PROTOCOL));
    // Usable at once: the route lookups that follow require it.
    attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    match request.execute().await {
        Err(error) if errno(&error) == Some(Errno::EEXIST as i32) => Ok(()),
        Err(error) => Err(error).context("cannot add ::6/128 to lo (is IPv6 disabled there?)"),
        Ok(()) => wait_for_route(ours).await,
    }
}

/// Waits until an address that was added is local. The kernel adds the route of an IPv6 address from
/// a work queue (`addrconf_dad_work`): one that is added after the route lookups would make their
/// results outdated permanently.
async fn wait_for_route(address: IpAddr) -> Result<()> {
    for _ in 0..MAX_POLLS {
        // A route through `lo` does not prove it: the address's prefix has one already.
        if tables::is_local(address)? {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    bail!(
        "the kernel did not add the local route of {address} within {:?}",
        POLL_INTERVAL * MAX_POLLS
    )
}

/// Removes `::6/128` from `lo`, if [`add_passthrough_v6`] added it.
pub(crate) async fn remove_passthrough_v6(netlink: &Handle) -> Result<()> {
    let messages: Vec<_> = netlink
        .address()
        .get()
        .set_link_index_filter(LOOPBACK_INDEX)
        .execute()
        .try_collect()
        .await
        .context("cannot list the addresses of lo")?;
    let mark = AddressAttribute::Protocol(PROTOCOL);
    for message in messages {
        if message.attributes.contains(&mark) {
            let request = netlink.address().del(message);
            request
                .execute()
                .await
                .context("cannot remove ::6/128 from lo")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(addresses: &[&str], dual_stack: bool) -> Option<bool> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| PodAddress {
                net: address.parse().unwrap(),
                interface: 2,
            })
            .collect();
        captures_ipv6(&addresses, dual_stack).ok()
    }

    #[test]
    fn the_first_address_decides_without_dual_stack() {
        assert_eq!(
            captures(&["127.0.0.1/8", "10.1.0.2/24"], false),
            Some(false)
        );
        assert_eq!(captures(&["10.1.0.2/24", "fd00::2/64"], false), Some(false));
        assert_eq!(captures(&["fd00::2/64", "fe80::1/64"], false), Some(true));
    }

    #[test]
    fn any_ipv6_address_decides_with_dual_stack() {
        assert_eq!(captures(&["10.1.0.2/24", "fd00::2/64"], true), Some(true));
        assert_eq!(captures(&["10.1.0.2/24", "fe80::1/64"], true), Some(false));
    }

    #[test]
    fn a_pod_without_addresses_is_an_error() {
        assert_eq!(
            captures(&["127.0.0.1/8", "::1/128", "fe80::1/64"], true),
            None
        );
    }
}
