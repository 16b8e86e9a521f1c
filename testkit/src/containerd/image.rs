//! The only image: busybox. All other programs of a container are in mounted directories of the
//! node.
//!
//! It is an archive in `docker save`'s format, which `ctr images import` accepts without any
//! registry.

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The image's name. No such registry exists (RFC 6761).
pub(super) const NAME: &str = "interceptor.test/busybox:1";

const BUSYBOX: &str = "/bin/busybox";
/// The program's names: a container's shell, and the sandbox's process.
const NAMES: [&str; 2] = ["bin/sh", "bin/sleep"];

/// The archive.
pub(super) fn archive() -> Result<Vec<u8>> {
    let layer = layer()?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(&layer))]},
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [NAME],
        "Layers": ["layer.tar"],
    }]);
    let mut archive = Builder::new(Vec::new());
    file(&mut archive, "config.json", config.to_string().as_bytes())?;
    file(&mut archive, "layer.tar", &layer)?;
    file(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    )?;
    Ok(archive.into_inner()?)
}

fn layer() -> Result<Vec<u8>> {
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("{BUSYBOX}: Debian's busybox-static has it"))?;
    let mut layer = Builder::new(Vec::new());
    file(&mut layer, "bin/busybox", &busybox)?;
    for name in NAMES {
        let mut header = header(EntryType::Symlink);
        layer.append_link(&mut header, name, "busybox")?;
    }
    Ok(layer.into_inner()?)
}

fn file(archive: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular);
    header.set_size(content.len().try_into()?);
    Ok(archive.append_data(&mut header, path, content)?)
}

fn header(kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// This machine's architecture, in the words of images.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}
