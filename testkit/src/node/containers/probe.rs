//! Startup probes, from the node's network namespace.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{ContainerProcess, Node, ObjectPod};
use crate::{lab::wait_until, node::http};

/// Waits until the startup probe succeeds. A container without one has started at once. (kubelet
/// probes at intervals of whole seconds.)
pub(super) fn await_started(
    node: &Node,
    pod: &ObjectPod,
    container: &Container,
    process: &mut ContainerProcess,
) -> Result<()> {
    let Some(probe) = &container.startup_probe else {
        return Ok(());
    };
    let get = probe.http_get.as_ref().context("only httpGet probes")?;
    let server = SocketAddr::new(pod.ip()?, port(container, get)?);
    let path = get.path.as_deref().unwrap_or("/");
    let seconds = probe.timeout_seconds.unwrap_or(1);
    let limit = Duration::from_secs(seconds.try_into()?);
    wait_until("the startup probe succeeds", || {
        let exited = process.try_wait()?;
        ensure!(exited.is_none(), "the container has exited: {exited:?}");
        let response = http::get(node.host.path(), server, path, limit);
        Ok(response.is_ok_and(|(status, _)| (200..400).contains(&status)))
    })
}

fn port(container: &Container, get: &HTTPGetAction) -> Result<u16> {
    let number = match &get.port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_deref() == Some(name));
            port.map(|port| port.container_port)
        }
    };
    Ok(number.context("no such port")?.try_into()?)
}
