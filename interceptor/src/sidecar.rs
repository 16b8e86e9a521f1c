//! Which sidecar is injected into which pods: the options of the commands, and the configuration
//! that is made of them and of what they name.

mod options;
mod sources;

pub(crate) use options::{Choices, SidecarOptions};
