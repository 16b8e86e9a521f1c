//! Counters of packets in a network namespace.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    command::{bounded, run},
    netns::Netns,
};

/// Counters of packets, in a table of nftables that is deleted with the network namespace.
pub struct Tap<'a> {
    netns: &'a Netns,
}

impl<'a> Tap<'a> {
    /// Counts packets at `hook` (`prerouting`, `output` ...): each counter has a name and a match,
    /// in nftables' syntax.
    pub fn at(netns: &'a Netns, hook: &str, counters: &[(&str, &str)]) -> Result<Self> {
        let chain = format!(
            "add table inet tap\n\
             add chain inet tap counted {{ type filter hook {hook} priority raw ; }}\n"
        );
        let counter = |(name, matches): &(&str, &str)| {
            format!(
                "add counter inet tap {name}\n\
                 add rule inet tap counted {matches} counter name {name}\n"
            )
        };
        let script = chain + &counters.iter().map(counter).collect::<String>();
        netns.enter(|| run(bounded("nft").args(["-f", "-"]), &script))?;
        Ok(Self { netns })
    }

    /// The number of packets that the counter `name` has counted.
    pub fn packets(&self, name: &str) -> Result<u64> {
        let list = ["--json", "list", "counter", "inet", "tap", name];
        let text = self.netns.enter(|| run(bounded("nft").args(list), ""))?;
        let json: Value = serde_json::from_str(&text)?;
        let objects = json["nftables"].as_array().context("a list of objects")?;
        let mut packets = objects
            .iter()
            .filter_map(|object| object["counter"]["packets"].as_u64());
        packets.next().context("a counter")
    }
}
