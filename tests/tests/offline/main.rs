//! The manifests and the pure verdict. Only the manifests' privileges are tested on a kernel, as
//! root.

mod manifests;
mod model;
