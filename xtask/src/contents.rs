//! What is distributed for an architecture, in the image and in the archive of a release.

use anyhow::Result;

use crate::{architecture::Architecture, command::say};

mod binary;
mod crates;
mod licences;
mod sbom;

pub(crate) use binary::path as binary_path;
pub(crate) use licences::Licence;

/// What is distributed for one architecture.
pub(crate) struct Contents {
    pub(crate) architecture: Architecture,
    /// The static binary, with the BPF object inside.
    pub(crate) binary: Vec<u8>,
    pub(crate) licences: Vec<Licence>,
    /// The bill of materials: `CycloneDX`, in JSON.
    pub(crate) sbom: Vec<u8>,
}

impl Contents {
    /// Builds the contents for each architecture, in the order of their names.
    pub(crate) fn build(architectures: &[Architecture]) -> Result<Vec<Self>> {
        let mut architectures = architectures.to_vec();
        architectures.sort_unstable();
        architectures.dedup();
        architectures.into_iter().map(Self::build_one).collect()
    }

    fn build_one(architecture: Architecture) -> Result<Self> {
        say(&format!("building for {architecture}"));
        Ok(Self {
            architecture,
            binary: binary::build(architecture)?,
            licences: licences::of_binary(architecture)?,
            sbom: serde_json::to_vec_pretty(&sbom::of_binary(architecture)?)?,
        })
    }
}
