//! A Job of `deploy/`, run on the node.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Container, PodSpec},
};

use super::{Node, agent::rights_of_root};
use crate::{
    command::{bounded, output},
    interceptor, manifests,
};

impl Node {
    /// Runs the Job that is rendered from a directory of `deploy/`: its arguments, its environment
    /// and its capabilities, with the node's CNI directories. Returns its stderr.
    pub fn run_job(&self, directory: &str) -> Result<String> {
        let objects = manifests::render(directory)?;
        let job: Job = serde_json::from_value(manifests::only(&objects, "Job")?.clone())?;
        let pod = job.spec.and_then(|spec| spec.template.spec);
        let mut pod = pod.context("the Job has no pod")?;
        let container = pod.containers.pop().context("the pod has no container")?;
        let mut command = bounded("setpriv");
        command
            .args(rights_of_root(&container)?)
            .arg(interceptor::binary())
            .args(container.args.iter().flatten());
        for variable in container.env.iter().flatten() {
            let value = variable.value.as_deref().unwrap_or_default();
            let directory = self.mounted_at(&pod, &container, value)?;
            command.env(
                &variable.name,
                directory.unwrap_or_else(|| value.to_owned()),
            );
        }
        let output = output(&mut command, "")?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{directory}: {stderr}");
        Ok(stderr)
    }

    /// The node's directory that is mounted into the container at this path.
    fn mounted_at(
        &self,
        pod: &PodSpec,
        container: &Container,
        path: &str,
    ) -> Result<Option<String>> {
        let mut mounts = container.volume_mounts.iter().flatten();
        let Some(mount) = mounts.find(|mount| mount.mount_path == path) else {
            return Ok(None);
        };
        let mut volumes = pod.volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name);
        let host = volume.and_then(|volume| volume.host_path.as_ref());
        let directory = match host.map(|host| host.path.as_str()) {
            Some("/opt/cni/bin") => &self.runtime.bin,
            Some("/etc/cni/net.d") => &self.runtime.conf,
            other => anyhow::bail!("{path}: the node has no {other:?}"),
        };
        Ok(Some(directory.display().to_string()))
    }
}
