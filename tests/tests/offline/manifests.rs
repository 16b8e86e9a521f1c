//! The manifests of `deploy/`, as `kubectl kustomize` renders them.

mod chart;
mod documentation;
mod following;
mod names;
mod rights;
mod types;
mod values;
mod webhook;

use std::{fs, sync::LazyLock};

use interceptor_testkit::manifests::{render, workspace};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Container, PodSpec, Volume},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The objects rendered from one directory of `deploy/`.
struct Rendered {
    dir: String,
    objects: Vec<Value>,
}

impl Rendered {
    fn of(dir: &str) -> Self {
        let objects = render(dir).unwrap();
        Self {
            dir: dir.to_owned(),
            objects,
        }
    }

    /// The base and every overlay, rendered once for all tests.
    fn platforms() -> &'static [Self] {
        static PLATFORMS: LazyLock<Vec<Rendered>> = LazyLock::new(Rendered::render_platforms);
        &PLATFORMS
    }

    fn base() -> &'static Self {
        &Self::platforms()[0]
    }

    fn render_platforms() -> Vec<Self> {
        let mut dirs = vec!["base".to_owned()];
        for overlay in fs::read_dir(workspace().join("deploy/overlays")).unwrap() {
            let name = overlay.unwrap().file_name();
            dirs.push(format!("overlays/{}", name.to_str().unwrap()));
        }
        dirs.sort();
        dirs.iter().map(|dir| Self::of(dir)).collect()
    }

    fn kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    /// The objects of one kind, typed.
    fn typed<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        self.kind(kind)
            .map(|object| serde_json::from_value(object.clone()).unwrap())
            .collect()
    }

    fn only<T: DeserializeOwned>(&self, kind: &str) -> T {
        let mut found = self.typed(kind);
        assert_eq!(found.len(), 1, "{}: {kind}", self.dir);
        found.remove(0)
    }

    fn pod(&self) -> PodSpec {
        let agent: DaemonSet = self.only("DaemonSet");
        agent.spec.unwrap().template.spec.unwrap()
    }

    fn agent(&self) -> Container {
        let mut containers = self.pod().containers;
        assert_eq!(containers.len(), 1);
        containers.remove(0)
    }
}

/// The host directory of a volume.
fn host_path<'a>(volumes: &'a [Volume], name: &str) -> &'a str {
    let volume = volumes.iter().find(|volume| volume.name == name);
    &volume.unwrap().host_path.as_ref().unwrap().path
}

/// A file of the repository.
fn source(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
