//! `cargo xtask image`: builds the container image, with a static binary, without a container engine.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{architecture::Architecture, contents::Contents, paths};

mod archive;
mod root;

pub(crate) use archive::archive;

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
    let archive = archive(&image.tag, &Contents::build(&architectures)?)?;
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
