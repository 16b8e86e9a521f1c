//! The manifests and the pure verdict. Only the manifests' rights are tried on a kernel, as root.

mod manifests;
mod model;
