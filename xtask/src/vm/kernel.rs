//! Debian's kernels for virtual machines: small, and with the kernel's own BTF.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::debian::{Apt, Packages};
use crate::architecture::Architecture;

/// The prefix of the metapackage of a suite's kernel.
const META_PACKAGE: &str = "linux-image-cloud-";
/// The prefix of the package of one version.
const IMAGE_PACKAGE: &str = "linux-image-";

/// A kernel's packages, unpacked.
pub(super) struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// Its version, as `uname -r` prints it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The image to boot. Where packages are split, it is beside the modules.
    pub(super) fn image(&self) -> PathBuf {
        let in_boot = self
            .root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release));
        if in_boot.exists() {
            return in_boot;
        }
        self.modules().join("vmlinuz")
    }

    /// The directory of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        modules(&self.root).join(&self.release)
    }
}

/// The directory of all modules.
fn modules(root: &Path) -> PathBuf {
    root.join("usr/lib/modules")
}

/// The newest default kernel of these Debian suites; downloaded once.
pub(super) fn fetch(suites: &[&str], architecture: Architecture, dir: &Path) -> Result<Kernel> {
    let root = dir.join("root");
    let packages = Packages {
        suites,
        architecture,
        root: &root,
    };
    packages.ensure(|apt| image_and_modules(apt, architecture))?;
    let release = fs::read_dir(modules(&root))?
        .next()
        .with_context(|| format!("no kernel in {}", root.display()))??
        .file_name()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel { root, release })
}

/// The packages with the kernel and its modules. The image's package depends on the others, if there are any.
fn image_and_modules(apt: &Apt, architecture: Architecture) -> Result<Vec<String>> {
    let meta_package = format!("{META_PACKAGE}{}", architecture.oci_name());
    let mut packages = apt.dependencies(&meta_package)?;
    packages.retain(|package| package.starts_with(IMAGE_PACKAGE));
    let image = packages.first().context("no package with the image")?;
    let release = image.trim_start_matches(IMAGE_PACKAGE);
    let mut others = apt.dependencies(image)?;
    others.retain(|other| other.ends_with(release));
    packages.append(&mut others);
    Ok(packages)
}
