//! The manifests, injection and the pure verdict. Only the manifests' privileges are tested on a
//! kernel, as root.

mod inject;
mod injection;
mod manifests;
mod model;
mod monitoring;
mod outputs;
mod pod_security;
mod webhook;
