//! `interceptor cni`

use std::process::ExitCode;

use clap::Args;

use crate::cni;

/// Run as a CNI plugin (called by the container runtime)
///
/// Reads the request from the environment (`CNI_COMMAND` and others) and from standard input, as in
/// the CNI specification. A binary named interceptor-cni runs this command. `interceptor agent`
/// installs it.
#[derive(Args)]
pub(super) struct Cni;

impl Cni {
    #[expect(clippy::unused_self, reason = "every command is run this way")]
    pub(super) fn run(&self) -> ExitCode {
        cni::main()
    }
}
