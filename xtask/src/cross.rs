//! Builds for an architecture, this machine's or another.
//!
//! The standard library is built from source, as for BPF and by the same compiler: no toolchain has to have
//! it for the architecture, and no foreign architecture has to be added to the machine's packages.

use std::process::Command;

use anyhow::Result;

use crate::{
    apt::{self, Need},
    architecture::Architecture,
};

/// The compiler for this machine, which Rust takes by default.
const HOST_COMPILER: &str = "cc";

/// The C compiler and the C library of an architecture: Debian's own, or Debian's for cross-compiling.
/// `ring`, which has assembly and C, requires the compiler; Rust requires it as the linker.
pub(crate) struct CToolchain {
    compiler: String,
    compiler_package: String,
    library: String,
    pub(crate) library_package: String,
}

impl CToolchain {
    pub(crate) fn of(architecture: Architecture) -> Result<Self> {
        let prefix = format!("{}-linux-gnu", architecture.name());
        if architecture == Architecture::of_this_machine()? {
            return Ok(Self {
                compiler: HOST_COMPILER.to_owned(),
                compiler_package: "gcc".to_owned(),
                library: format!("/usr/lib/{prefix}/libc.a"),
                library_package: "libc6-dev".to_owned(),
            });
        }
        Ok(Self {
            compiler: format!("{prefix}-gcc"),
            compiler_package: format!("gcc-{}", architecture.gnu_name()),
            library: format!("/usr/{prefix}/lib/libc.a"),
            library_package: format!("libc6-dev-{}-cross", architecture.oci_name()),
        })
    }

    fn ensure(&self) -> Result<()> {
        apt::ensure(&[
            Need::new(&self.compiler, &self.compiler_package),
            Need::new(&self.library, &self.library_package),
        ])
    }
}

/// Adds to a cargo command of [`Toolchain`](crate::toolchain::Toolchain) that it builds static programs for an
/// architecture. The C library, glibc, is linked statically too.
pub(crate) fn configure(cargo: &mut Command, architecture: Architecture) -> Result<()> {
    let c = CToolchain::of(architecture)?;
    c.ensure()?;
    let target = architecture.target();
    cargo
        .args(["-Z", "build-std=std", "--locked", "--target", target])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // Only for another architecture: for this machine's, the variable would apply to build scripts and macros
    // too, and cargo would compile them again for each architecture.
    if c.compiler != HOST_COMPILER {
        cargo.env(linker_variable(target), c.compiler);
    }
    Ok(())
}

fn linker_variable(target: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}
