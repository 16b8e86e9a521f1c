//! The qdisc that filters of packets hang on where the kernel has no links for them.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::TcHandle;

use super::{interfaces::PodInterface, netlink};

/// The handle that the kernel gives it.
const HANDLE: u32 = 0xffff_0000;

/// Takes the qdisc away from an interface of the calling thread's network namespace, unless somebody
/// else has filters there.
pub fn remove(interface: &PodInterface) -> Result<()> {
    netlink::run(async |handle| {
        let index = i32::try_from(interface.index)?;
        let mut filters = handle.traffic_filter(index);
        for filters in [filters.get().ingress(), filters.get().egress()] {
            let filters: Vec<_> = filters
                .execute()
                .try_collect()
                .await
                .with_context(|| format!("cannot list the filters of {}", interface.name))?;
            if !filters.is_empty() {
                return Ok(());
            }
        }
        let mut request = handle.qdisc().del(index);
        let header = &mut request.message_mut().header;
        header.handle = TcHandle::from(HANDLE);
        header.parent = TcHandle::CLSACT;
        request
            .execute()
            .await
            .with_context(|| format!("cannot remove the clsact qdisc of {}", interface.name))
    })
}
