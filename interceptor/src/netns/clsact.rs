//! The qdisc for packet filters on kernels without tcx links.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcHandle, TcMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, TrafficFilterGetRequest};

use super::{
    interfaces::PodInterface,
    netlink::{self, errno},
};

/// The qdisc's handle, which the kernel sets.
const HANDLE: u32 = 0xffff_0000;

/// Removes the qdisc from an interface of the calling thread's network namespace, unless another program
/// has filters there. A missing qdisc is not an error.
pub(crate) fn remove(interface: &PodInterface) -> Result<()> {
    netlink::run(async |handle| {
        let index = i32::try_from(interface.index)?;
        let filters = filters(&handle, interface).await?;
        if filters.iter().any(|direction| !direction.is_empty()) {
            return Ok(());
        }
        let mut request = handle.qdisc().del(index);
        let header = &mut request.message_mut().header;
        header.handle = TcHandle::from(HANDLE);
        header.parent = TcHandle::CLSACT;
        match request.execute().await {
            Err(error) if errno(&error).is_some_and(is_missing) => Ok(()),
            result => result
                .with_context(|| format!("cannot remove the clsact qdisc of {}", interface.name)),
        }
    })
}

/// Whether an interface of the calling thread's network namespace has this filter in both directions.
pub(crate) fn has_filters(interface: &PodInterface, priority: u16, filter: u32) -> Result<bool> {
    let filters = netlink::run(async |handle| filters(&handle, interface).await)?;
    let is_wanted = |message: &TcMessage| {
        // The priority is in the upper half, the protocol in the lower.
        message.header.handle == filter.into() && message.header.info >> 16 == u32::from(priority)
    };
    Ok(filters
        .iter()
        .all(|direction| direction.iter().any(is_wanted)))
}

/// The ingress and the egress filters.
async fn filters(handle: &Handle, interface: &PodInterface) -> Result<[Vec<TcMessage>; 2]> {
    let index = i32::try_from(interface.index)?;
    let list = async |request: TrafficFilterGetRequest| {
        let filters: Result<Vec<_>, _> = request.execute().try_collect().await;
        match filters {
            Err(error) if errno(&error).is_some_and(is_missing) => Ok(Vec::new()),
            filters => {
                filters.with_context(|| format!("cannot list the filters of {}", interface.name))
            }
        }
    };
    let request = || handle.traffic_filter(index).get();
    Ok([
        list(request().ingress()).await?,
        list(request().egress()).await?,
    ])
}

/// The kernel's errors for a missing or a different qdisc (`tc_get_qdisc`).
fn is_missing(errno: i32) -> bool {
    [Errno::ENOENT, Errno::EINVAL, Errno::ENODEV].contains(&Errno::from_raw(errno))
}
