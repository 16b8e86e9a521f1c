//! The connection counters of the programs.

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use interceptor_ebpf::{Counted, Counts};

use super::{layout, pins::Pins};

/// The number of connections of each kind on all processors, without kinds that have none. Empty if no
/// pod is attached.
pub fn read() -> Result<Vec<(Counted, u64)>> {
    let pin = Pins::new().maps().join(layout::pin(layout::COUNTS));
    if !pin.exists() {
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
