//! Sets the path of the BPF object that the crate embeds, built by `cargo xtask build-ebpf`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The path of another object, for cross-compiling.
const VARIABLE: &str = "INTERCEPTOR_EBPF";
/// The directory of the objects, relative to this crate's directory.
const DIR: &str = "../target/ebpf";

fn main() {
    let object = if cfg!(feature = "other-layout") {
        "interceptor-other-layout.o"
    } else {
        "interceptor.o"
    };
    // Read at run time, because a copied target directory has this script compiled in another place.
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
