//! The image's root directory: the binary, links with its other names, the licences and the bill of
//! materials.

use anyhow::Result;

use crate::{contents::Contents, tarball::Tarball};

/// The binary, which the image runs.
pub(super) const BINARY: &str = "/interceptor";
/// Other names of the binary. With the first, the image can replace istio-init's, whose command is
/// `pilot-agent istio-iptables …`.
const NAMES: [&str; 5] = [
    "pilot-agent",
    "istio-iptables",
    "interceptor-cni",
    "kubectl-interceptor",
    "interceptor",
];
/// The directory of these names, on the `PATH`.
pub(super) const NAMES_DIR: &str = "/usr/local/bin";
const LICENCES_DIR: &str = "licenses";
/// The name by which scanners of images recognise a bill of materials.
const SBOM: &str = "interceptor.cdx.json";

/// The root as a layer.
pub(super) fn layer(contents: &Contents) -> Result<Vec<u8>> {
    let mut layer = Tarball::new();
    layer.file(BINARY, 0o755, &contents.binary)?;
    layer.file(SBOM, 0o644, &contents.sbom)?;
    layer.directory(LICENCES_DIR)?;
    for licence in &contents.licences {
        let path = format!("{LICENCES_DIR}/{}", licence.name);
        layer.file(&path, 0o644, &licence.text)?;
    }
    // Container runtimes use either path for network namespaces.
    layer.link("run", "/var/run")?;
    for path in ["usr", "usr/local", NAMES_DIR] {
        layer.directory(path)?;
    }
    for name in NAMES {
        layer.link(&format!("{NAMES_DIR}/{name}"), BINARY)?;
    }
    for path in ["var", "var/run"] {
        layer.directory(path)?;
    }
    layer.into_bytes()
}
