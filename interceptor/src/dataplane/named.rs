//! Finds attached pods by their names.

use anyhow::Result;

use super::Dataplane;
use crate::{
    netns::{Netns, NetnsSpec},
    pod_name::PodName,
};

impl Dataplane {
    /// The network namespace of the attached pod with this name. A path that leads elsewhere is that of
    /// an earlier sandbox of the pod.
    pub(crate) fn named(&mut self, name: &PodName) -> Result<Option<NetnsSpec>> {
        let pods = self.attached()?.into_iter();
        let mut named = pods.filter(|pod| pod.record.pod.as_ref() == Some(name));
        Ok(named.find_map(|pod| {
            let spec = NetnsSpec::File(pod.record.netns);
            let netns = Netns::open(&spec).ok()?;
            (netns.cookie() == pod.netns).then_some(spec)
        }))
    }
}
