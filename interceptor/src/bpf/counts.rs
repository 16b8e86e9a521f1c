//! The connection counters of the programs: of the node, and of each pod.

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use interceptor_ebpf::{COUNTS, Counted, Counts, MAX_PODS, NetnsCookie, PodCounts, Policy};

use super::{
    layout,
    maps::Maps,
    pins::{self, Pins},
};

impl Maps {
    /// The index of counters for a new pod, which are 0: of a pod that is not attached any more.
    pub fn claim_counters(&mut self, netns: NetnsCookie) -> Result<u16> {
        // Cookies are consecutive, so the first try almost always succeeds.
        for step in 0..u64::from(MAX_PODS) {
            let index = u16::try_from(netns.wrapping_add(step) % u64::from(MAX_PODS))?;
            if self.is_free(index)? {
                let numbers = [0; COUNTS];
                self.pod_counts
                    .set(index.into(), PodCounts { netns, numbers }, 0)
                    .context("cannot reset the counters of a pod")?;
                return Ok(index);
            }
        }
        bail!("{MAX_PODS} pods are captured, and no more are possible: detach one first")
    }

    fn is_free(&self, index: u16) -> Result<bool> {
        let owner = self.counts_at(index)?.netns;
        match self.policies.get(&owner, 0) {
            Ok(policy) => Ok(policy.counters != index),
            Err(MapError::KeyNotFound) => Ok(true),
            Err(error) => Err(error).context("cannot read the policies"),
        }
    }

    /// The number of a pod's connections of each kind since it was attached, without kinds that have
    /// none.
    pub fn connections(&self, policy: &Policy) -> Result<Vec<(Counted, u64)>> {
        let counts = self.counts_at(policy.counters)?;
        Ok(Counted::all()
            .map(|counted| (counted, counts.numbers[counted.index()]))
            .filter(|(_, number)| *number != 0)
            .collect())
    }

    fn counts_at(&self, index: u16) -> Result<PodCounts> {
        let counts = self.pod_counts.get(&index.into(), 0);
        counts.context("cannot read the counters of a pod")
    }
}

/// The connections of one pod.
pub(crate) type PodConnections = (NetnsCookie, Vec<(Counted, u64)>);

/// The connections of each attached pod. Empty if no pod is attached.
pub(crate) fn read_pods() -> Result<Vec<PodConnections>> {
    let Some(maps) = Maps::open_if_complete(&Pins::new().maps())? else {
        return Ok(Vec::new());
    };
    let policies = maps.policies.iter();
    policies
        .map(|entry| {
            let (netns, policy) = entry.context("cannot list the policies")?;
            Ok((netns, maps.connections(&policy)?))
        })
        .collect()
}

/// The number of connections of each kind on all processors, without kinds that have none. Empty if no
/// pod is attached.
pub fn read() -> Result<Vec<(Counted, u64)>> {
    let pin = Pins::new().maps().join(layout::pin(layout::COUNTS));
    if !pins::exists(&pin)? {
        return Ok(Vec::new());
    }
    let map = MapData::from_pin(&pin);
    let map = map.with_context(|| format!("cannot open the map {}", pin.display()))?;
    let counts: PerCpuArray<_, Counts> = Map::PerCpuArray(map).try_into()?;
    let counts = counts.get(&0, 0).context("cannot read the counts")?;
    Ok(sums(&counts))
}

fn sums(processors: &[Counts]) -> Vec<(Counted, u64)> {
    let sum = |counted: Counted| {
        let numbers = processors
            .iter()
            .map(|counts| counts.numbers[counted.index()]);
        (counted, numbers.sum())
    };
    Counted::all()
        .map(sum)
        .filter(|(_, sum)| *sum != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use interceptor_ebpf::{COUNTS, Direction, Refusal};

    use super::*;

    #[test]
    fn the_counts_of_all_processors_are_summed() {
        let refused = Counted::refusal(Direction::Inbound, Refusal::TableFull);
        let mut processors = [Counts {
            passed: 7,
            numbers: [0; COUNTS],
        }; 3];
        processors[0].numbers[refused.index()] = 2;
        processors[2].numbers[refused.index()] = 3;
        assert_eq!(sums(&processors), [(refused, 5)]);
    }
}
