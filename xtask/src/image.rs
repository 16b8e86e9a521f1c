//! `cargo xtask image`: builds the container image, with a static binary, without a container engine.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{command::say, paths};

mod architecture;
mod archive;
mod binary;
mod crates;
mod licences;
mod root;
mod sbom;

pub(crate) use architecture::Architecture;

/// Options of `cargo xtask image`.
#[derive(Args)]
pub(crate) struct Image {
    /// Path of the archive [default: target/interceptor-image.tar]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// The image's name and tag
    #[arg(long, value_name = "NAME", default_value_t = default_tag())]
    tag: String,
    /// Architecture of the image; may be repeated [default: this machine's]
    #[arg(long = "arch", value_enum)]
    architectures: Vec<Architecture>,
}

/// The image's name in `deploy/base`.
fn default_tag() -> String {
    format!("interceptor:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the binaries and writes the image.
pub(crate) fn run(image: &Image) -> Result<()> {
    let mut architectures = image.architectures.clone();
    if architectures.is_empty() {
        architectures.push(Architecture::of_this_machine()?);
    }
    // The image does not depend on the order of the arguments.
    architectures.sort_unstable();
    architectures.dedup();
    let variants = architectures
        .into_iter()
        .map(variant)
        .collect::<Result<Vec<_>>>()?;
    let archive = archive::write(&image.tag, &variants)?;
    let default = || paths::target().join("interceptor-image.tar");
    let output = image.output.clone().unwrap_or_else(default);
    fs::write(&output, &archive).with_context(|| format!("cannot write {}", output.display()))?;
    println!(
        "{} ({} KiB): {}",
        output.display(),
        archive.len() / 1024,
        image.tag
    );
    Ok(())
}

/// The image's content for one architecture.
fn variant(architecture: Architecture) -> Result<archive::Variant> {
    say(&format!("image: {architecture}"));
    let binary = binary::build(architecture)?;
    let licences = licences::of_binary(architecture)?;
    let sbom = serde_json::to_vec_pretty(&sbom::of_image(architecture)?)?;
    Ok(archive::Variant {
        architecture,
        layer: root::layer(&binary, &licences, &sbom)?,
    })
}
