//! The CNI plugin, chained after the plugins that make a pod's network.
//!
//! It knows nothing itself: it asks the agent, so that no container starts uncaptured. A plugin
//! that fails stops every pod of the node, those among them that could repair it. So it lets pass
//! what surely is no pod of the mesh before it looks for the agent, and only ADD can fail for want
//! of the agent: DEL, GC and STATUS always succeed, and CHECK fails only on the agent's word.
//!
//! After an uninstall it stays for as long as pods are captured, lets every new pod pass, and leaves the
//! node with the last of them (`cleanup`).
//!
//! The specification: <https://www.cni.dev/docs/spec/>.

use std::{
    env,
    io::{self, Read as _},
    process::ExitCode,
};

pub mod call;
mod cleanup;
pub mod conf;
pub mod conflist;
pub mod error;
pub mod files;
mod log;
pub mod protocol;
mod verbs;
pub mod version;

use call::{Environment, Verb};
use error::CniError;

use crate::stdio::{self, message};

/// What the runtime finds in its directory of plugins, and what `type` names in a configuration.
pub const PLUGIN: &str = "interceptor-cni";

/// More than this is no configuration. (GC's names every sandbox of a node.)
const MAX_INPUT: u64 = 4 << 20;

/// What it says of itself when a person calls it.
const ABOUT: &str = "interceptor-cni is a CNI plugin: a container runtime calls it for every pod, \
with CNI_COMMAND and others in the environment and a configuration on standard input. `interceptor \
agent` installs it; it is not meant to be run by hand.";

/// Runs the verb in the environment, as a runtime calls a plugin.
#[must_use]
pub fn main() -> ExitCode {
    let environment = Environment::new(env::vars_os());
    if environment.get("CNI_COMMAND").is_none() {
        message!("{ABOUT}\nCNI versions: {}", version::SUPPORTED.join(", "));
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    // What could not be read is missing from the JSON, which says so.
    let _read = io::stdin().take(MAX_INPUT).read_to_end(&mut input);
    match run(&environment, &input) {
        Ok(output) => answer(&output, ExitCode::SUCCESS),
        Err(error) => {
            let error = error.to_json(&version::of_input(&input));
            answer(&format!("{error}\n"), ExitCode::FAILURE)
        }
    }
}

/// Gives the runtime what it is to have on standard output. Without that it must not take the call
/// for done. DEL, GC and STATUS have nothing to say.
fn answer(output: &str, code: ExitCode) -> ExitCode {
    if output.is_empty() {
        return code;
    }
    match stdio::print_required(output) {
        Ok(()) => code,
        Err(error) => {
            message!("interceptor-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the output for standard output.
fn run(environment: &Environment, input: &[u8]) -> Result<String, CniError> {
    match environment.verb()? {
        Verb::Add => verbs::add(environment, input),
        Verb::Check => verbs::check(environment, input).map(|()| String::new()),
        Verb::Del => {
            verbs::del(environment, input);
            Ok(String::new())
        }
        Verb::Gc => {
            verbs::gc(input);
            Ok(String::new())
        }
        // Asked every few seconds, and a node whose plugins do not answer well gets no pods: not
        // even those that would bring the agent back.
        Verb::Status => Ok(String::new()),
        Verb::Version => Ok(version::answer(input)),
    }
}
