//! Tests that need neither root nor BPF.

mod manifests;
mod model;
