//! Points the crate at the BPF object that `cargo xtask build-ebpf` makes, to be embedded.

use std::{env, path::Path};

/// Names another object: one for the machines that this is cross-compiled for.
const VARIABLE: &str = "INTERCEPTOR_EBPF";
/// Where `cargo xtask build-ebpf` leaves the object, from this crate's folder.
const OBJECT: &str = "../target/ebpf/interceptor.o";

fn main() {
    let object = env::var_os(VARIABLE).unwrap_or_else(|| OBJECT.into());
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join(object);
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
