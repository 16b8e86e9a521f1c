//! The names of captured pods, by the cookies of their network namespaces.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_ebpf::NetnsCookie;

use super::flow::Pod;
use crate::dataplane::Dataplane;

/// The shortest time between two reads of what is attached.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The pods that were captured when last read.
#[derive(Default)]
pub(super) struct Pods {
    known: HashMap<NetnsCookie, Pod>,
    read: Option<Instant>,
}

impl Pods {
    /// The pod with this network namespace. If it is not known, reads what is attached, at most once
    /// in a second.
    pub(super) fn get(&mut self, netns: NetnsCookie) -> Pod {
        if !self.known.contains_key(&netns)
            && self.read.is_none_or(|read| read.elapsed() >= READ_INTERVAL)
        {
            self.read = Some(Instant::now());
            // The flow is shown with the cookie alone.
            let _unknown = self.read_attached();
        }
        let unknown = || Pod {
            netns_cookie: netns,
            ..Pod::default()
        };
        self.known.get(&netns).cloned().unwrap_or_else(unknown)
    }

    fn read_attached(&mut self) -> Result<()> {
        for pod in Dataplane::new().attached()? {
            let path = pod.record.netns.display().to_string();
            let named = Pod::new(pod.record.pod, path, pod.netns);
            self.known.insert(pod.netns, named);
        }
        Ok(())
    }
}
