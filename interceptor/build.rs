//! Sets the path of the BPF object that the crate embeds, built by `cargo xtask build-ebpf`.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// The path of another object, for cross-compiling.
const VARIABLE: &str = "INTERCEPTOR_EBPF";
/// The directory of the objects, relative to this crate's directory.
const DIR: &str = "../target/ebpf";
/// A file of that directory, locked while `cargo xtask` builds the first object, beside this crate's
/// dependencies.
const LOCK: &str = "lock";

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
    if let Err(error) = wait_for_build(&directory.join(LOCK)) {
        println!("cargo::error=cannot wait until the BPF object is built: {error}");
    }
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

fn wait_for_build(lock: &Path) -> io::Result<()> {
    match File::open(lock) {
        Ok(lock) => lock.lock_shared(),
        // Nothing has been built beside dependencies.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
