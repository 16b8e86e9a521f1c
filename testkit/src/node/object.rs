//! A pod's object in the API.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The properties of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, in kubelet's and the runtime's cgroups.
    pub uid: String,
    /// The UID of its mirror object in the API, if it is a static pod.
    pub mirror_uid: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it has a proxy.
    pub has_proxy: bool,
    /// Its runtime class.
    pub runtime_class: Option<String>,
    /// The first of its IDs on the node, if it has a user namespace.
    pub first_id: Option<u32>,
}

impl Manifest {
    /// A pod of the mesh, as Istio's injector leaves it.
    #[must_use]
    pub fn of_mesh(name: &str, uid: &str) -> Self {
        let mut manifest = Self::plain(name, uid);
        manifest.has_proxy = true;
        manifest.annotate("sidecar.istio.io/status", r#"{"version":"test"}"#)
    }

    /// A pod outside the mesh.
    #[must_use]
    pub fn plain(name: &str, uid: &str) -> Self {
        Self {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            mirror_uid: None,
            annotations: BTreeMap::new(),
            has_proxy: false,
            runtime_class: None,
            first_id: None,
        }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same as a static pod, whose mirror object has the UID `mirror`.
    #[must_use]
    pub fn mirrored_as(mut self, mirror: &str) -> Self {
        self.mirror_uid = Some(mirror.to_owned());
        let uid = self.uid.clone();
        self.annotate("kubernetes.io/config.hash", &uid)
            .annotate("kubernetes.io/config.mirror", &uid)
    }

    /// The same with a runtime class.
    #[must_use]
    pub fn with_runtime_class(mut self, class: &str) -> Self {
        self.runtime_class = Some(class.to_owned());
        self
    }

    /// The same with a user namespace, whose IDs start at `first`.
    #[must_use]
    pub const fn with_ids_from(mut self, first: u32) -> Self {
        self.first_id = Some(first);
        self
    }

    /// Its object, on `node`: its containers run, or wait.
    #[must_use]
    pub fn object(&self, node: &str, runs: bool) -> Value {
        let mut containers = vec![json!({"name": "app", "image": "example.org/app:1"})];
        if self.has_proxy {
            containers.push(json!({
                "name": "istio-proxy",
                "image": "docker.io/istio/proxyv2:1.27.0",
                "args": ["proxy", "sidecar"],
                "securityContext": {"runAsUser": 1337, "runAsGroup": 1337},
            }));
        }
        let statuses: Vec<_> = containers
            .iter()
            .map(|container| status(container, runs))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.mirror_uid.as_ref().unwrap_or(&self.uid),
                "annotations": self.annotations,
                "labels": {"app": self.name},
            },
            "spec": {
                "nodeName": node,
                "hostUsers": self.first_id.is_none(),
                "runtimeClassName": self.runtime_class,
                "containers": containers,
            },
            "status": {
                "phase": if runs { "Running" } else { "Pending" },
                "containerStatuses": statuses,
            },
        })
    }
}

fn status(container: &Value, runs: bool) -> Value {
    let state = if runs {
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    } else {
        json!({"waiting": {"reason": "ContainerCreating"}})
    };
    json!({
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": runs,
        "restartCount": 0,
        "started": runs,
        "state": state,
    })
}
