//! A network that leads nowhere: an interface with an address and a default route, so that every
//! destination can be dialed, and the proxy gets the connection.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::sandbox::Sandbox;
use crate::netns::netlink;

const INTERFACE: &str = "eth0";
/// The other end, which stays in the same network namespace.
const OTHER_END: &str = "none0";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const PREFIX_LENGTH: u8 = 24;

/// Makes the network.
pub(super) fn make(sandbox: &Sandbox) -> Result<()> {
    let made = sandbox.netns.run(|| {
        netlink::run(async |handle| {
            let pair = LinkVeth::new(INTERFACE, OTHER_END).build();
            handle.link().add(pair).execute().await?;
            let index = if_nametoindex(INTERFACE)?;
            for name in [INTERFACE, OTHER_END] {
                let up = LinkUnspec::new_with_name(name).up().build();
                handle.link().set(up).execute().await?;
            }
            let address = ADDRESS.into();
            let add = handle.address().add(index, address, PREFIX_LENGTH);
            add.execute().await?;
            let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
            Ok(handle.route().add(route.build()).execute().await?)
        })
    });
    made.context("cannot make the network of the sandbox")
}
