//! The archive: an OCI image layout, which older releases of Docker can load as well.
//!
//! Layers are not compressed, so the same content has the same digest with every library. The client
//! that pushes the image compresses them.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::root;
use crate::{architecture::Architecture, contents::Contents, tarball::Tarball};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The archive of the image `tag`, with one variant for each architecture.
pub(crate) fn archive(tag: &str, variants: &[Contents]) -> Result<Vec<u8>> {
    let mut archive = Archive(Tarball::new());
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut manifests = Vec::new();
    let mut loadable = Vec::new();
    for variant in variants {
        let (manifest, docker) = archive.variant(tag, variant)?;
        manifests.push(manifest);
        loadable.push(docker);
    }
    let mut image = match <[Value; 1]>::try_from(manifests) {
        Ok([only]) => only,
        Err(manifests) => archive.blob_of(INDEX, &index(&manifests))?,
    };
    image["annotations"] = json!({
        // The name for containerd's import, and for other tools.
        "io.containerd.image.name": full_name(tag),
        "org.opencontainers.image.ref.name": tag,
    });
    archive.file("index.json", &serde_json::to_vec(&index(&[image]))?)?;
    // Docker before 25 reads this instead of the index, and supports one architecture.
    archive.file("manifest.json", &serde_json::to_vec(&loadable[..1])?)?;
    archive.0.into_bytes()
}

fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

struct Archive(Tarball);

impl Archive {
    /// Adds the blobs of one architecture's image; returns its descriptor, and its entry in Docker's
    /// manifest.
    fn variant(&mut self, tag: &str, variant: &Contents) -> Result<(Value, Value)> {
        let layer = self.blob(LAYER, &root::layer(variant)?)?;
        let config = self.blob_of(CONFIG, &config(variant.architecture, &layer))?;
        let docker = json!({
            "Config": blob_path(&config),
            "RepoTags": [tag],
            "Layers": [blob_path(&layer)],
        });
        let mut manifest = self.blob_of(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": [layer],
            }),
        )?;
        manifest["platform"] =
            json!({"os": "linux", "architecture": variant.architecture.oci_name()});
        Ok((manifest, docker))
    }

    fn blob_of(&mut self, media_type: &str, document: &Value) -> Result<Value> {
        self.blob(media_type, &serde_json::to_vec(document)?)
    }

    /// Adds a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = format!("sha256:{:x}", Sha256::digest(content));
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        self.file(&blob_path(&descriptor), content)?;
        Ok(descriptor)
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.0.file(path, 0o644, content)
    }
}

/// The path of a descriptor's blob.
fn blob_path(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}

/// The image's configuration.
fn config(architecture: Architecture, layer: &Value) -> Value {
    json!({
        "architecture": architecture.oci_name(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": "0:0",
            "Entrypoint": [root::BINARY],
            "Env": [format!("PATH={}", root::NAMES_DIR)],
            "Labels": {
                "org.opencontainers.image.title": "interceptor",
                "org.opencontainers.image.description": "Transparent proxy interception for sidecar meshes with eBPF",
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        },
        // The layer is not compressed: its digest is that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image"}],
    })
}

/// The name with Docker's default registry and namespace, if it has none, as Docker and containerd
/// complete it.
fn full_name(tag: &str) -> String {
    match tag.split_once('/') {
        None => format!("docker.io/library/{tag}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tag.to_owned(),
        Some(_) => format!("docker.io/{tag}"),
    }
}

#[cfg(test)]
mod tests;
