//! The interfaces of a network namespace.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::Handle;

/// An interface, by both its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// The interface's index.
    pub index: u32,
    /// Its name (`eth0`).
    pub name: String,
}

/// All interfaces, in the kernel's order.
pub async fn list(netlink: &Handle) -> Result<Vec<PodInterface>> {
    let messages: Vec<_> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("cannot list the interfaces")?;
    Ok(messages.iter().filter_map(interface).collect())
}

fn interface(message: &LinkMessage) -> Option<PodInterface> {
    let index = message.header.index;
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(PodInterface {
                index,
                name: name.clone(),
            }),
            _ => None,
        })
}
