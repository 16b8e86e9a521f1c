//! The CNI plugin, chained after the plugins that create a pod's network.
//!
//! The plugin sends each request to the agent, so that no container starts uncaptured. A failing plugin
//! blocks all pods of the node, including those that could fix it. So pods that are certainly not in
//! the mesh start without a request, and only ADD can fail because no agent responds: DEL, GC and
//! STATUS always succeed, and CHECK fails only if the agent responds so.
//!
//! After an uninstallation the plugin stays while pods are captured, lets every new pod start, and
//! removes itself with the last captured pod (`cleanup`).
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

/// The file name of the plugin's binary, and its `type` in network configurations.
pub const PLUGIN: &str = "interceptor-cni";

/// The maximum length of a configuration. (GC's contains every sandbox of a node.)
const MAX_INPUT: u64 = 4 << 20;

/// Printed when the binary is run by hand.
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
    // After a failed read, parsing the incomplete JSON fails.
    let _read = io::stdin().take(MAX_INPUT).read_to_end(&mut input);
    match run(&environment, &input) {
        Ok(output) => print(&output, ExitCode::SUCCESS),
        Err(error) => {
            let error = error.to_json(&version::of_input(&input));
            print(&format!("{error}\n"), ExitCode::FAILURE)
        }
    }
}

/// Prints the result for the runtime, and fails if that fails: the runtime must not treat the call as
/// successful. DEL, GC and STATUS have no output.
fn print(output: &str, code: ExitCode) -> ExitCode {
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
        // Called every few seconds. If it failed, the node would start no pods, not even the agent's.
        Verb::Status => Ok(String::new()),
        Verb::Version => Ok(version::response(input)),
    }
}
