//! The image's root directory: the binary, links with its other names, the licences and the bill of
//! materials.

use anyhow::Result;
use tar::{Builder, EntryType, Header};

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

/// A file with licences.
pub(super) struct Licence {
    pub(super) name: String,
    pub(super) text: Vec<u8>,
}

/// The root as a layer. It is reproducible: it contains nothing of the machine or the time.
pub(super) fn layer(binary: &[u8], licences: &[Licence], sbom: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    file(&mut layer, BINARY, 0o755, binary)?;
    file(&mut layer, SBOM, 0o644, sbom)?;
    directory(&mut layer, LICENCES_DIR)?;
    for licence in licences {
        let path = format!("{LICENCES_DIR}/{}", licence.name);
        file(&mut layer, &path, 0o644, &licence.text)?;
    }
    // Container runtimes use either path for network namespaces.
    link(&mut layer, "run", "/var/run")?;
    for path in ["usr", "usr/local", NAMES_DIR] {
        directory(&mut layer, path)?;
    }
    for name in NAMES {
        link(&mut layer, &format!("{NAMES_DIR}/{name}"), BINARY)?;
    }
    for path in ["var", "var/run"] {
        directory(&mut layer, path)?;
    }
    Ok(layer.into_inner()?)
}

type Layer = Builder<Vec<u8>>;

fn file(layer: &mut Layer, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(content.len().try_into()?);
    Ok(layer.append_data(&mut header, relative(path), content)?)
}

fn directory(layer: &mut Layer, path: &str) -> Result<()> {
    let mut header = header(EntryType::Directory, 0o755);
    let path = format!("{}/", relative(path));
    Ok(layer.append_data(&mut header, path, &[][..])?)
}

fn link(layer: &mut Layer, path: &str, target: &str) -> Result<()> {
    let mut header = header(EntryType::Symlink, 0o777);
    Ok(layer.append_link(&mut header, relative(path), target)?)
}

/// A header with root as the owner and 1970 as the time.
pub(super) fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}
