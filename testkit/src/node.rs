//! A node as kubelet and a container runtime set it up, with an API server.
//!
//! ```text
//!  pod: cni-ID                                     node
//!  app :8080, proxy :15001 :15006                  the API server, the agent, remote :80
//!  eth0 10.1.0.2, fd00:1::2 ────────────────────── vethX 10.1.0.1, fd00:1::1
//!                                                  lo    10.2.0.9, fd00:2::9
//!
//!  CGROUP/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/
//!      cri-containerd-ID.scope
//! ```

mod agent;
mod containers;
mod http;
mod job;
mod kubelet;
mod object;
mod pod;
mod runtime;
mod test_dir;
mod webhook;

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

pub use agent::{AgentPlacement, AgentProcess, NAMESPACE, container};
use anyhow::Result;
pub use containers::{APP_IMAGE, ContainerProcess, ContainerRole, Image, ObjectPod, test_images};
pub use kubelet::Driver;
pub use object::Manifest;
pub use pod::Pod;
pub use runtime::{Call, ISTIO_CNI, Runtime};
use test_dir::TestDir;
pub use webhook::WebhookProcess;

use crate::{
    actor::Actor,
    apiserver::ApiServer,
    cgroup::Cgroup,
    machine::{self, Exclusive, Shared},
    manifests,
    netns::Netns,
    users::{APP, PROXY, ROOT},
    world::{Bind, serve},
};

/// The address of a service outside the pods.
pub const REMOTE: &str = "10.2.0.9:80";
/// The server that responds there when the pod is not captured.
pub const STRAIGHT: &str = "remote:80";
/// The server that responds to a dialler there when the pod is captured.
pub const PROXIED: &str = "proxy:15001";
/// The server that responds there when the pod is captured, and the original destination that it
/// gets.
pub const CAPTURED: &str = "proxy:15001 for 10.2.0.9:80";

/// A node. Deleted when dropped, its pods first.
pub struct Node {
    /// Its name in the API.
    pub name: String,
    /// The API server.
    pub api: ApiServer,
    /// The container runtime's directories.
    pub runtime: Runtime,
    /// A server outside the pods.
    pub remote: Actor,
    /// A client outside the pods.
    pub client: Actor,
    /// The node's own network namespace.
    pub host: Netns,
    /// The cgroup that is the node's root cgroup.
    pub cgroup: Cgroup,
    driver: Driver,
    dir: TestDir,
    ids: AtomicU64,
    _shared: Option<Shared>,
}

const HOST: &str = "
addr add 10.2.0.9/32 dev lo
addr add fd00:2::9/128 dev lo nodad
";

impl Node {
    /// Creates one that runs in parallel with other tests.
    pub fn new(driver: Driver) -> Result<Self> {
        let shared = machine::shared()?;
        Self::make(driver, Some(shared))
    }

    /// Creates one for a test that has the machine to itself.
    pub fn alone(driver: Driver, _exclusive: &Exclusive) -> Result<Self> {
        Self::make(driver, None)
    }

    /// Creates one for a caller that excludes other tests, or not, by other means than `shared`.
    pub fn make(driver: Driver, shared: Option<Shared>) -> Result<Self> {
        let cgroup = Cgroup::new()?;
        cgroup.child(driver.kubepods())?;
        let host = Netns::new("node", Some(&cgroup.child("system.slice/node")?))?;
        host.ip(HOST)?;
        let start = |name| {
            let cgroup = cgroup.child("system.slice/outside")?;
            Actor::start(name, ROOT, host.namespace(), Some(&cgroup))
        };
        let dir = TestDir::new()?;
        fs::create_dir(dir.path().join("netns"))?;
        let node = Self {
            name: format!("node-{}", process::id()),
            api: ApiServer::start_in(&host)?,
            runtime: Runtime::new(dir.path())?,
            remote: start("remote")?,
            client: start("client")?,
            host,
            cgroup,
            driver,
            dir,
            ids: AtomicU64::new(1),
            _shared: shared,
        };
        serve(&node.remote, Bind::DUAL_WILDCARD, 80)?;
        node.create_objects()?;
        Ok(node)
    }

    /// Creates the objects that a cluster has besides pods.
    fn create_objects(&self) -> Result<()> {
        use serde_json::json;

        let name = &self.name;
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
        }))?;
        for namespace in ["shop", "kube-system"] {
            self.api.put(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
            }))?;
        }
        self.deploy(manifests::base()?)?;
        self.api.put(agent::own_pod(name))?;
        self.api
            .forward_ports(NAMESPACE, agent::OWN_POD, &self.host);
        Ok(())
    }

    /// Creates a pod's object and its cgroup.
    pub fn schedule(&self, manifest: Manifest) -> Result<Pod> {
        self.api.put(manifest.object(&self.name, false))?;
        Pod::new(self, manifest)
    }

    /// Runs a pod: sandbox, proxy, then the app.
    pub fn run(&self, manifest: Manifest) -> Result<Pod> {
        let mut pod = self.schedule(manifest)?;
        pod.start_sandbox(self)?;
        if pod.manifest.has_proxy {
            pod.start_proxy(self)?;
        }
        pod.start_app(self)?;
        self.report_running(&pod)?;
        Ok(pod)
    }

    /// This many running pods of the mesh, with networks that end at the node.
    pub fn fill(&self, pods: u8) -> Result<Vec<Pod>> {
        let run = |number| {
            let manifest = Manifest::of_mesh(&format!("web-{number}"), &self.new_uid());
            let mut pod = self.schedule(manifest)?;
            pod.start_light_sandbox(self, number)?;
            self.report_running(&pod)?;
            Ok(pod)
        };
        (0..pods).map(run).collect()
    }

    /// Reports to the API that a pod's containers run.
    pub fn report_running(&self, pod: &Pod) -> Result<()> {
        self.api
            .put(pod.manifest.object(&self.name, true))
            .map(drop)
    }

    /// Deletes a pod: its processes, its network, then its object.
    pub fn delete(&self, mut pod: Pod) -> Result<()> {
        pod.stop_sandbox(self)?;
        let Manifest {
            namespace, name, ..
        } = &pod.manifest;
        self.api.remove("v1", "Pod", namespace, name).map(drop)
    }

    /// A UID that no other pod has, on any node.
    #[must_use]
    pub fn new_uid(&self) -> String {
        static UIDS: AtomicU64 = AtomicU64::new(1);
        let number = UIDS.fetch_add(1, Ordering::Relaxed);
        format!(
            "2f9b1c34-0f3a-4b6e-{:04x}-{number:012x}",
            process::id() & 0xffff
        )
    }

    /// A container ID, as long as real ones.
    fn new_id(&self) -> String {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{:032x}{number:032x}", process::id())
    }

    fn netns_dir(&self) -> PathBuf {
        self.dir.path().join("netns")
    }

    /// The node's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
