//! The interfaces through which a pod's packets leave and enter it, and where strict mode sees them: at
//! the veth's other end, which nothing in the pod can change, if that is in the node's network
//! namespace, or else at the pod's interface itself.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nix::errno::Errno;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::{
    Netns, NetnsSpec,
    interfaces::{self, PodInterface},
    netlink,
};
use crate::settings::Settings;

/// An interface of a pod that strict mode guards.
#[derive(Clone, Debug)]
pub(crate) struct PodUplink {
    /// The pod's interface.
    pub(crate) interface: PodInterface,
    /// Its peer, if that is in the node's network namespace.
    pub(crate) peer: Option<Peer>,
}

/// The node's end of a veth.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) interface: PodInterface,
    /// The pod's network namespace, as an ID in the node's.
    pub(crate) netns_id: i32,
}

/// The network namespace of this process, which is the node's for an agent.
pub(crate) fn node_netns() -> Result<Netns> {
    Netns::open(&NetnsSpec::File("/proc/self/ns/net".into()))
}

/// The uplinks of the calling thread's network namespace, the file `pod`, among its `interfaces`.
pub(crate) fn find(
    pod: BorrowedFd<'_>,
    interfaces: &[PodInterface],
    settings: &Settings,
    node: &Netns,
) -> Result<Vec<PodUplink>> {
    let guarded = interfaces::guarded(interfaces, settings);
    let peers = netlink::run(async |handle| peer_indices(&handle, &guarded).await)?;
    let uplinks = guarded.into_iter().zip(peers);
    node.run(|| {
        netlink::run(async |handle| {
            let mut found = Vec::new();
            for (interface, peer) in uplinks {
                let peer = match peer {
                    Some(index) => find_peer(&handle, index, interface.index, pod).await?,
                    None => None,
                };
                // A pod that takes its link down must not be without the programs when the link is
                // up again. The others that are down are a kernel module's (`tunl0`, `sit0`).
                if peer.is_some() || interface.is_up {
                    found.push(PodUplink { interface, peer });
                }
            }
            Ok(found)
        })
    })
}

/// For each interface, the index of its peer, in whatever network namespace that is.
async fn peer_indices(handle: &Handle, interfaces: &[PodInterface]) -> Result<Vec<Option<u32>>> {
    let mut peers = Vec::new();
    for interface in interfaces {
        let message = link(handle, interface.index).await?;
        peers.push(message.as_ref().and_then(peer_of).map(|(index, _)| index));
    }
    Ok(peers)
}

/// The interface with this index, if it is the peer of the interface `of` of the network namespace
/// `pod`. (Two network namespaces may have interfaces with equal indices.)
async fn find_peer(
    handle: &Handle,
    index: u32,
    of: u32,
    pod: BorrowedFd<'_>,
) -> Result<Option<Peer>> {
    let Some(message) = link(handle, index).await? else {
        return Ok(None);
    };
    let (Some((peer, Some(netns_id))), Some(interface)) =
        (peer_of(&message), interfaces::interface(&message))
    else {
        return Ok(None);
    };
    let is_peer = peer == of && netns_id_of(handle, pod).await? == Some(netns_id);
    Ok(is_peer.then_some(Peer {
        interface,
        netns_id,
    }))
}

/// An interface; `None` if it does not exist.
async fn link(handle: &Handle, index: u32) -> Result<Option<LinkMessage>> {
    let mut links = handle.link().get().match_index(index).execute();
    match links.try_next().await {
        Err(error) if netlink::errno(&error) == Some(Errno::ENODEV as i32) => Ok(None),
        link => link.with_context(|| format!("cannot read the interface {index}")),
    }
}

/// The index of a veth's or netkit device's peer, and the ID of the peer's network namespace, if that
/// is another one. (Other kinds have the interface below them in the same attribute.)
pub(super) fn peer_of(message: &LinkMessage) -> Option<(u32, Option<i32>)> {
    let attributes = &message.attributes;
    let is_pair = attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos
            .iter()
            .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit))),
        _ => false,
    });
    let index = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) if is_pair => Some(*index),
        _ => None,
    })?;
    let netns = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkNetNsId(id) => Some(*id),
        _ => None,
    });
    Some((index, netns))
}

/// The ID of a network namespace; `None` if it has none.
async fn netns_id_of(handle: &Handle, netns: BorrowedFd<'_>) -> Result<Option<i32>> {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(u32::try_from(netns.as_raw_fd())?)];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut responses = handle
        .clone()
        .request(request)
        .context("cannot request the ID of the pod's network namespace")?;
    while let Some(response) = responses.next().await {
        match response.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
                let id = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        NsidAttribute::Id(id) => Some(*id),
                        _ => None,
                    });
                return Ok(id.filter(|id| *id >= 0));
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(error.to_io())
                    .context("cannot read the ID of the pod's network namespace");
            }
            _ => {}
        }
    }
    Ok(None)
}
