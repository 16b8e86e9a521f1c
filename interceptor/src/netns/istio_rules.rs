//! Netfilter rules in a network namespace, created by iptables-legacy, iptables-nft or nft: whether
//! istio-init or istio-cni created some, which is detected by the names of their chains; and rules of
//! other programs that have another effect than beside Istio's rules.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context as _, Result};

mod legacy;
pub(super) mod nft;

/// The prefix of istio-iptables' chain names (`ISTIO_OUTPUT`).
const ISTIO_IPTABLES: &[u8] = b"ISTIO_";
/// The prefix of istio-nftables' chain names (`istio-output`).
const ISTIO_NFTABLES: &[u8] = b"istio-";

/// Whether the calling thread's network namespace has Istio's rules.
pub fn are_present() -> Result<bool> {
    let by_nft = nft::has_chains().context("cannot list the chains of nf_tables")?;
    Ok(by_nft || legacy::has_chains().context("cannot read the rules of ip_tables")?)
}

/// A chain that affects captured connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    family: &'static str,
    table: String,
    name: String,
    effect: Effect,
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.family, self.table, self.name)
    }
}

/// The effect of a chain on captured connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// The chain's policy is drop.
    Drops,
    /// The chain rewrites outgoing packets.
    Rewrites,
}

/// Warnings about rules of other programs in the calling thread's network namespace that have another
/// effect than beside Istio's rules.
pub fn others() -> Result<Vec<String>> {
    let mut chains = BTreeSet::new();
    nft::add_chains(&mut chains).context("cannot list the chains of nf_tables")?;
    legacy::add_chains(&mut chains).context("cannot read the rules of ip_tables")?;
    let named = |effect| {
        let chains = chains.iter().filter(|chain| chain.effect == effect);
        let names: Vec<_> = chains.map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let drops = named(Effect::Drops).map(|chains| {
        format!(
            "packets that no rule accepts are dropped (policy drop of {chains}): rules there see the \
             app's port instead of the proxy's inbound port, and a stand-in (127.128.0.0/9, \
             fd69:6365:7074::/64) instead of the proxy's outbound port: accept these, or captured \
             connections hang"
        )
    });
    let rewrites = named(Effect::Rewrites).map(|chains| {
        format!(
            "nat rules ({chains}) do not apply to outbound connections that are captured: exclude \
             their destinations (-x, -o), or remove them"
        )
    });
    Ok(drops.into_iter().chain(rewrites).collect())
}
