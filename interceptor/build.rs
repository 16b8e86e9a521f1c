//! Points the crate at the BPF object that `cargo xtask build-ebpf` makes, to be embedded.

use std::path::Path;

/// Where `cargo xtask build-ebpf` leaves the object, from this crate's folder.
const OBJECT: &str = "../target/ebpf/interceptor.o";

fn main() {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join(OBJECT);
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
