//! Points the crate at the BPF object that `cargo xtask build-ebpf` makes, to be embedded.

use std::path::Path;

/// Where `cargo xtask build-ebpf` leaves the objects, from this crate's folder.
const FOLDER: &str = "../target/ebpf";

fn main() {
    let object = if cfg!(feature = "other-layout") {
        "interceptor-other-layout.o"
    } else {
        "interceptor.o"
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let object = folder.join(object);
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
