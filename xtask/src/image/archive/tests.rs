use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
};

use super::*;
use crate::contents::Licence;

type Files = BTreeMap<String, Vec<u8>>;

fn contents(architecture: Architecture) -> Contents {
    Contents {
        architecture,
        binary: format!("the binary for {architecture}").into_bytes(),
        licences: vec![Licence {
            name: "LICENSE-MIT".to_owned(),
            text: b"as is".to_vec(),
        }],
        sbom: b"{}".to_vec(),
    }
}

const BOTH: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

fn image(architectures: &[Architecture]) -> Vec<u8> {
    let variants: Vec<_> = architectures.iter().copied().map(contents).collect();
    archive("interceptor:1", &variants).unwrap()
}

fn files(archive: &[u8]) -> Files {
    let mut archive = tar::Archive::new(Cursor::new(archive));
    let mut files = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(path, content);
    }
    files
}

fn json(files: &Files, path: &str) -> Value {
    serde_json::from_slice(&files[path]).unwrap()
}

/// Returns the blob of a descriptor, after checking its size and digest.
fn blob<'a>(files: &'a Files, descriptor: &Value) -> &'a [u8] {
    let content = &files[&blob_path(descriptor)];
    assert_eq!(descriptor["size"], content.len());
    let digest = format!("sha256:{:x}", Sha256::digest(content));
    assert_eq!(descriptor["digest"], digest);
    content
}

fn document(files: &Files, descriptor: &Value) -> Value {
    serde_json::from_slice(blob(files, descriptor)).unwrap()
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    assert_eq!(image(&BOTH), image(&BOTH));
}

#[test]
fn every_descriptor_describes_its_blob() {
    let files = files(&image(&[Architecture::X86_64]));
    let index = json(&files, "index.json");
    let manifest = document(&files, &index["manifests"][0]);
    let config = document(&files, &manifest["config"]);
    blob(&files, &manifest["layers"][0]);
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        manifest["layers"][0]["digest"]
    );
    assert_eq!(config["config"]["Entrypoint"], json!(["/interceptor"]));
}

#[test]
fn two_architectures_are_one_image_with_an_index() {
    let files = files(&image(&BOTH));
    let top = json(&files, "index.json");
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
    let index = document(&files, &top["manifests"][0]);
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| {
            let config = document(&files, &document(&files, manifest)["config"]);
            assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
            config["architecture"].clone()
        })
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
}

#[test]
fn the_manifest_for_docker_has_the_same_blobs() {
    let files = files(&image(&[Architecture::X86_64]));
    let docker = json(&files, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["interceptor:1"]));
    for path in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(files.contains_key(path.as_str().unwrap()), "{path}");
    }
}

#[test]
fn the_root_has_the_binary_under_all_its_names() {
    let layer = root::layer(&contents(Architecture::X86_64)).unwrap();
    let mut archive = tar::Archive::new(Cursor::new(&layer));
    let mut links = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        if let Some(target) = entry.link_name().unwrap() {
            links.insert(path, target.to_string_lossy().into_owned());
        } else if path == "interceptor" {
            assert_eq!(header.mode().unwrap(), 0o755);
        }
    }
    for name in ["pilot-agent", "istio-iptables", "interceptor-cni"] {
        assert_eq!(links[&format!("usr/local/bin/{name}")], "/interceptor");
    }
}

#[test]
fn short_names_are_completed_as_containerd_does() {
    assert_eq!(
        full_name("interceptor:1"),
        "docker.io/library/interceptor:1"
    );
    assert_eq!(full_name("me/interceptor"), "docker.io/me/interceptor");
    assert_eq!(full_name("localhost/interceptor"), "localhost/interceptor");
    assert_eq!(full_name("example.org/i:1"), "example.org/i:1");
}
