//! `interceptor cni`

use std::process::ExitCode;

use clap::Args;

use crate::cni;

/// Be the CNI plugin that a container runtime calls for every pod
///
/// What to do is in the environment (`CNI_COMMAND` and others) and on standard input, as the CNI
/// specification says. A binary that is called interceptor-cni is this command. `interceptor agent`
/// installs it.
#[derive(Args)]
pub(super) struct Cni;

impl Cni {
    #[expect(clippy::unused_self, reason = "every command is run this way")]
    pub(super) fn run(&self) -> ExitCode {
        cni::main()
    }
}
