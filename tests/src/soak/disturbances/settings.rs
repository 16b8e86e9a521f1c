//! Annotations of a running pod change: a port is excluded from capture, and captured again. All other
//! connections must not be affected.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_testkit::sidecar::{INBOUND_PORT, OUTBOUND_PORT};

use super::{Scene, rest};
use crate::{
    outside::{self, EXCLUDABLE_PORT},
    pods::EXCLUDABLE_APP_PORT,
    traffic::Identity,
};

const EXCLUDE_OUTBOUND: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
const EXCLUDE_INBOUND: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// How long a change may take. Long enough for a machine with a high load.
const TIMEOUT: Duration = Duration::from_mins(5);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A port that is excluded and captured again.
#[derive(Clone, Copy)]
struct Excludable {
    annotation: &'static str,
    port: u16,
    listener: u16,
}

pub(super) fn outbound(scene: &mut Scene<'_>) -> Result<()> {
    let excludable = Excludable {
        annotation: EXCLUDE_OUTBOUND,
        port: EXCLUDABLE_PORT,
        listener: OUTBOUND_PORT,
    };
    excludable.exclude_and_capture(scene)
}

pub(super) fn inbound(scene: &mut Scene<'_>) -> Result<()> {
    let excludable = Excludable {
        annotation: EXCLUDE_INBOUND,
        port: EXCLUDABLE_APP_PORT,
        listener: INBOUND_PORT,
    };
    excludable.exclude_and_capture(scene)
}

impl Excludable {
    fn exclude_and_capture(self, scene: &mut Scene<'_>) -> Result<()> {
        let pod = scene.any_pod();
        for is_excluded in [true, false] {
            self.annotate(scene, pod, is_excluded)?;
            self.until_in_effect(scene, pod, is_excluded)?;
        }
        Ok(())
    }

    fn annotate(self, scene: &mut Scene<'_>, pod: usize, is_excluded: bool) -> Result<()> {
        let port = self.port.to_string();
        let manifest = &mut scene.pods[pod].pod.manifest;
        let value = if is_excluded { port } else { String::new() };
        manifest
            .annotations
            .insert(self.annotation.to_owned(), value);
        scene.node.report_running(&scene.pods[pod].pod)
    }

    fn destination(self, scene: &Scene<'_>, pod: usize) -> Result<SocketAddr> {
        match self.listener {
            OUTBOUND_PORT => outside::excludable(),
            _ => scene.pods[pod].excludable(),
        }
    }

    fn until_in_effect(self, scene: &mut Scene<'_>, pod: usize, is_excluded: bool) -> Result<()> {
        let to = self.destination(scene, pod)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let client = match self.listener {
                OUTBOUND_PORT => scene.pods[pod].app(),
                _ => scene.pods[pod].client(),
            };
            let seen = client.probe(to)?;
            if self.is_expected(scene, pod, is_excluded, seen.as_ref()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let name = &scene.pods[pod].name;
                let what = format!("{name}: {to} after a change of {}", self.annotation);
                let state = if is_excluded { "excluded" } else { "captured" };
                let log = scene.agents.end_of_log();
                scene.violate(what, state.to_owned(), format!("{seen:?}\n{log}"));
                return Ok(());
            }
            rest(POLL_INTERVAL)?;
        }
    }

    fn is_expected(
        self,
        scene: &Scene<'_>,
        pod: usize,
        is_excluded: bool,
        seen: Result<&Identity, &String>,
    ) -> bool {
        let captured_by = scene.pods[pod].captured_server(self.listener);
        seen.is_ok_and(|seen| match &seen.report {
            None => is_excluded,
            Some(report) => {
                !is_excluded
                    && seen.server == captured_by
                    && report.listener == self.listener.to_string()
            }
        })
    }
}
