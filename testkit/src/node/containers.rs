//! A pod's containers, run as processes from the pod's object, in kubelet's order: each init container
//! to its end, each native sidecar until its startup probe succeeds, then the others.
//!
//! A container has the object's command, arguments, variables, user, capabilities and root file
//! system. It shares the machine's process namespace, and has no seccomp profile and no limits of CPU
//! and memory.

mod arguments;
mod image;
mod probe;
mod process;

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
pub use image::{APP_IMAGE, Image, test_images};
use k8s_openapi::api::core::v1::{Container, Pod as PodObject, PodSpec};
pub use process::ContainerProcess;
use serde_json::{Value, json};

use super::{Manifest, Node, Pod};
use crate::lab::wait_until;

/// A pod that is run from its object. Deleted when dropped.
pub struct ObjectPod {
    // Dropped in this order.
    running: Vec<ContainerProcess>,
    /// Its sandbox.
    pub pod: Pod,
    /// Its object in the API.
    pub object: Value,
    waiting: VecDeque<Scheduled>,
    images: Vec<Image>,
}

/// A container that is to be started, and what kubelet waits for before the next one.
struct Scheduled {
    container: Container,
    role: ContainerRole,
}

/// The role of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRole {
    /// Runs to its end before the next container starts.
    Init,
    /// An init container that keeps running; the next container starts when it has started.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
}

impl Node {
    /// Assigns an object of the API to the node and creates its sandbox, as scheduler and kubelet
    /// do. No container runs yet.
    pub fn set_up(&self, object: &Value, images: Vec<Image>) -> Result<ObjectPod> {
        let mut object = object.clone();
        let uid = self.new_uid();
        object["metadata"]["uid"] = json!(uid);
        object["spec"]["nodeName"] = json!(self.name);
        object["status"] = json!({"phase": "Pending"});
        let object = self.api.put(object)?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let manifest = Manifest::plain(text("name"), &uid).in_namespace(text("namespace"));
        let mut pod = Pod::new(self, manifest)?;
        pod.start_sandbox(self)?;
        Ok(ObjectPod {
            running: Vec::new(),
            waiting: schedule(&object)?,
            pod,
            object,
            images,
        })
    }

    /// Runs a pod: its sandbox, then all its containers.
    pub fn run_object(&self, object: &Value, images: Vec<Image>) -> Result<ObjectPod> {
        let mut pod = self.set_up(object, images)?;
        pod.start_all(self)?;
        Ok(pod)
    }
}

impl ObjectPod {
    /// Starts the next container, and waits as kubelet does before the one after it. Returns its
    /// name, or nothing if all have been started.
    pub fn start_next(&mut self, node: &Node) -> Result<Option<String>> {
        let Some(Scheduled { container, role }) = self.waiting.pop_front() else {
            return Ok(None);
        };
        let name = container.name.clone();
        let context = || format!("container {name}");
        let mut process =
            ContainerProcess::start(node, self, &container, role).with_context(context)?;
        match role {
            ContainerRole::Init => process.wait_for_success().with_context(context)?,
            ContainerRole::Sidecar => probe::await_started(node, self, &container, &mut process)
                .with_context(|| format!("{}: {}", context(), process.log()))?,
            ContainerRole::Regular => {}
        }
        self.running.push(process);
        Ok(Some(name))
    }

    /// Starts all containers that have not been started, and reports to the API that they run.
    pub fn start_all(&mut self, node: &Node) -> Result<()> {
        while self.start_next(node)?.is_some() {}
        self.object["status"] = json!({"phase": "Running"});
        node.api.put(self.object.clone()).map(drop)
    }

    /// Waits until all regular containers have exited successfully, then terminates the native
    /// sidecars in reverse order, as kubelet does. The pod is complete.
    pub fn complete(&mut self, node: &Node) -> Result<()> {
        let of_role = |role| move |one: &&mut ContainerProcess| one.role == role;
        for container in self
            .running
            .iter_mut()
            .filter(of_role(ContainerRole::Regular))
        {
            let name = container.name.clone();
            container.wait_for_success().context(name)?;
        }
        let mut sidecars: Vec<_> = self
            .running
            .iter_mut()
            .filter(of_role(ContainerRole::Sidecar))
            .collect();
        for container in sidecars.iter_mut().rev() {
            let name = container.name.clone();
            container.terminate().context(name)?;
        }
        self.object["status"] = json!({"phase": "Succeeded"});
        node.api.put(self.object.clone()).map(drop)
    }

    /// A container that was started.
    pub fn container(&mut self, name: &str) -> Result<&mut ContainerProcess> {
        let mut running = self.running.iter_mut();
        let found = running.find(|container| container.name == name);
        found.with_context(|| format!("no container {name}"))
    }

    /// Its address, `status.podIP`.
    pub fn ip(&self) -> Result<std::net::IpAddr> {
        let first = self.pod.addresses()?.first().copied();
        first.context("the pod has no address")
    }

    fn image(&self, container: &Container) -> Result<&Image> {
        let reference = container.image.as_deref().unwrap_or_default();
        let mut images = self.images.iter();
        let image = images.find(|image| image.reference == reference);
        image.with_context(|| format!("ErrImagePull: the node has no image {reference:?}"))
    }

    /// Waits until no process of the pod's containers is left.
    pub fn wait_for_exit(&mut self) -> Result<()> {
        wait_until("all containers have exited", || {
            let mut exited = true;
            for container in &mut self.running {
                exited &= container.try_wait()?.is_some();
            }
            Ok(exited)
        })
    }
}

/// The containers in the order of their starts.
fn schedule(object: &Value) -> Result<VecDeque<Scheduled>> {
    let pod: PodObject = serde_json::from_value(object.clone())?;
    let spec: PodSpec = pod.spec.context("the pod has no spec")?;
    let init = spec.init_containers.into_iter().flatten().map(|container| {
        let keeps_running = container.restart_policy.as_deref() == Some("Always");
        let role = if keeps_running {
            ContainerRole::Sidecar
        } else {
            ContainerRole::Init
        };
        Scheduled { container, role }
    });
    let regular = spec.containers.into_iter().map(|container| Scheduled {
        container,
        role: ContainerRole::Regular,
    });
    let all: VecDeque<_> = init.chain(regular).collect();
    let mounts = |one: &Scheduled| one.container.volume_mounts.clone().unwrap_or_default();
    ensure!(
        all.iter().all(|one| mounts(one).is_empty()),
        "containers with volumes cannot be run here"
    );
    Ok(all)
}
