//! The node agent: captures each pod of the mesh on its node before the pod's first container starts.

mod api;
mod backoff;
mod blocking;
#[cfg(test)]
mod fixtures;
mod flows;
pub mod host;
pub mod install;
pub mod kube;
pub mod options;
pub mod policy;
pub mod reconcile;
pub mod run;
pub mod telemetry;
