//! Points the crate at the BPF object of `cargo xtask build-ebpf`, which it embeds.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Names another object: one for the machines that this is cross-compiled for.
const VARIABLE: &str = "INTERCEPTOR_EBPF";
/// Where `cargo xtask build-ebpf` leaves the objects, from this crate's directory.
const DIR: &str = "../target/ebpf";

fn main() {
    let object = if cfg!(feature = "other-layout") {
        "interceptor-other-layout.o"
    } else {
        "interceptor.o"
    };
    // Read now, not when this script was compiled: a copied target directory has it compiled elsewhere.
    let crate_directory = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let directory = Path::new(&crate_directory).join(DIR);
    let object = env::var_os(VARIABLE).map_or_else(|| directory.join(object), PathBuf::from);
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        println!(
            "cargo::rustc-env=INTERCEPTOR_EBPF_OBJECT={}",
            object.display()
        );
    } else {
        println!("cargo::error=the BPF object is not built yet: run `cargo xtask build-ebpf`");
    }
}
