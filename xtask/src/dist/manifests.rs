//! The manifests: the sources for kustomize, and one rendered file for each platform. None has or requires a
//! `CustomResourceDefinition`, except those of the platform and of `deploy/monitoring`, which is not rendered.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{
    Repository, VERSION,
    tree::{Tracked, tracked},
};
use crate::{command::read, kubectl, paths, tarball::Tarball};

const DIRECTORY: &str = "deploy";
/// Directories that are rendered beside those of the platforms.
const PARTS: [&str; 4] = ["base", "webhook", "viewer", "examples/uninstall"];

/// The archive.
pub(super) fn package(repository: &Repository) -> Result<Vec<u8>> {
    let top = format!("interceptor-{VERSION}-manifests");
    let mut tarball = Tarball::new();
    let sources = tracked(DIRECTORY)?;
    let mut rendered: Vec<_> = platforms(&sources);
    rendered.extend(PARTS.map(str::to_owned));
    // The chart has its own archive.
    for Tracked { path, text } in sources
        .iter()
        .filter(|file| !file.path.starts_with("helm/"))
    {
        let text = repository.in_manifest(text);
        tarball.file(&format!("{top}/{DIRECTORY}/{path}"), 0o644, text.as_bytes())?;
    }
    let kubectl = kubectl::ensure()?;
    for directory in rendered {
        let objects = repository.in_manifest(&render(&kubectl, &directory)?);
        let name = directory.rsplit('/').next().unwrap_or_default();
        tarball.file(&format!("{top}/{name}.yaml"), 0o644, objects.as_bytes())?;
    }
    tarball.into_gzip()
}

/// The directories of the platforms.
fn platforms(sources: &[Tracked]) -> Vec<String> {
    let directory = |file: &Tracked| {
        let directory = file.path.strip_suffix("/kustomization.yaml")?;
        directory
            .starts_with("overlays/")
            .then(|| directory.to_owned())
    };
    sources.iter().filter_map(directory).collect()
}

fn render(kubectl: &Path, directory: &str) -> Result<String> {
    let path = paths::root().join(DIRECTORY).join(directory);
    let objects = read(Command::new(kubectl).arg("kustomize").arg(path))?;
    ensure!(
        !objects.contains("kind: CustomResourceDefinition"),
        "{DIRECTORY}/{directory} has a CustomResourceDefinition"
    );
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{Cursor, Read as _},
    };

    use flate2::read::GzDecoder;

    use super::*;

    fn files(repository: &str) -> BTreeMap<String, String> {
        let package = package(&repository.parse().unwrap()).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(Cursor::new(package)));
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
        files
    }

    #[test]
    fn each_platform_is_rendered_with_the_image_of_the_registry() {
        let files = files("registry.example.org/interceptor");
        let rendered: Vec<_> = files
            .keys()
            .filter(|path| !path.contains("/deploy/"))
            .collect();
        assert!(rendered.len() > PARTS.len() + 5, "{rendered:?}");
        let image = format!("image: registry.example.org/interceptor:{VERSION}");
        for path in rendered {
            let has_pods = files[path].contains("image: ");
            assert!(
                !has_pods || files[path].contains(&image),
                "{path}: {}",
                files[path]
            );
        }
        for (path, text) in &files {
            assert!(!text.contains("image: interceptor:"), "{path}: {text}");
        }
        let base =
            &files[&format!("interceptor-{VERSION}-manifests/deploy/base/kustomization.yaml")];
        assert!(
            base.contains("newName: registry.example.org/interceptor\n"),
            "{base}"
        );
    }
}
