//! Whether Istio's rules are in a network namespace: those of istio-init or istio-cni, written by
//! iptables in either of its kinds, or by nft. They are known by the names of their chains.

use anyhow::{Context as _, Result};

mod legacy;
mod nft;

/// What the names of istio-iptables' chains begin with (`ISTIO_OUTPUT`).
const ISTIO_IPTABLES: &[u8] = b"ISTIO_";
/// What the names of istio-nftables' chains begin with (`istio-output`).
const ISTIO_NFTABLES: &[u8] = b"istio-";

/// Whether there are any in the calling thread's network namespace.
pub fn are_here() -> Result<bool> {
    let by_nft = nft::has_chains().context("cannot list the chains of nf_tables")?;
    Ok(by_nft || legacy::has_chains().context("cannot read the rules of ip_tables")?)
}
