//! What the verbs do.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    call::{Environment, Pod},
    cleanup,
    conf::{Conf, FailurePolicy, PluginSettings},
    error::{CniError, Code},
    log,
    protocol::{self, CallError, GcRequest, PodName, Request, Response},
    version,
};

/// How long an agent that is not there is waited for: as long as one takes to be replaced.
const REPLACED: Duration = Duration::from_secs(10);

/// How often it is looked for meanwhile.
const AGAIN: Duration = Duration::from_millis(200);

/// How long the agent may take for what it is told, or to be asked how it is. Nothing depends on it.
const TELLING: Duration = Duration::from_secs(5);

/// What a pod is to be done with.
enum Case {
    /// Without asking the agent.
    Passes(String),
    Asks(Pod),
}

impl Case {
    fn of(environment: &Environment, settings: &PluginSettings) -> Result<Self, CniError> {
        let Some(pod) = environment.pod()? else {
            return Ok(Self::Passes("CNI_ARGS names no pod".to_owned()));
        };
        let passes = settings.passes(&pod.name);
        Ok(passes.map_or(Self::Asks(pod), Self::Passes))
    }
}

/// A pod's network has been made. Answers with its result once the pod is captured, or is not to be.
pub(super) fn add(environment: &Environment, input: &[u8]) -> Result<String, CniError> {
    let settings = PluginSettings::read(input)?;
    let conf = Conf::read(input)?;
    let tell = |line: &str| log::tell(settings.log_file.as_deref(), line);
    if settings.uninstalled {
        tell(&format!("ADD {}: allowed: uninstalled", name(environment)));
        cleanup::sweep(&settings, None);
        return Ok(conf.result());
    }
    match Case::of(environment, &settings)? {
        Case::Passes(reason) => {
            tell(&format!("ADD {}: allowed: {reason}", name(environment)));
            Ok(conf.result())
        }
        Case::Asks(pod) => {
            let name = pod.name.clone();
            let done = ask_to_add(environment, &conf, &settings, pod);
            match &done {
                Ok(what) => tell(&format!("ADD {name}: {what}")),
                Err(error) => tell(&format!("ADD {name}: {error}")),
            }
            done.map(|_| conf.result())
        }
    }
}

/// For the log.
fn name(environment: &Environment) -> String {
    let pod = environment.pod().ok().flatten();
    let sandbox = || environment.get("CNI_CONTAINERID").unwrap_or("-").to_owned();
    pod.map_or_else(sandbox, |pod| pod.name.to_string())
}

/// Answers with what became of the pod.
fn ask_to_add(
    environment: &Environment,
    conf: &Conf,
    settings: &PluginSettings,
    pod: Pod,
) -> Result<String, CniError> {
    version::check(&conf.cni_version)?;
    let request = environment.add_request(pod)?;
    let pod = request.pod.clone();
    match call_patiently(settings, &Request::Add(request)) {
        Ok(Response::Captured) => Ok("captured".to_owned()),
        Ok(Response::Skipped { reason }) => Ok(format!("skipped: {reason}")),
        Ok(Response::Failed { reason } | Response::Unknown { reason }) => {
            let message = format!("the pod {pod} cannot be captured");
            Err(CniError::new(Code::NotCaptured, message, reason))
        }
        Ok(Response::Ack) => Err(CniError::new(
            Code::NotCaptured,
            format!("could not verify that pod {pod} is captured"),
            "the agent acknowledged without a result: plugin and agent versions are incompatible",
        )),
        Err(CallError::Absent { .. }) if settings.failure_policy == FailurePolicy::Ignore => {
            Ok("starts uncaptured: no agent is running, and failurePolicy is Ignore".to_owned())
        }
        Err(error) => Err(no_answer(&pod, &error)),
    }
}

fn no_answer(pod: &PodName, error: &CallError) -> CniError {
    let cure = match error {
        CallError::Absent { .. } => {
            "start the agent (`kubectl get pods -A -o wide` shows whether its DaemonSet has a pod \
             on this node), exclude the namespace (excludeNamespaces), or let pods start uncaptured (failurePolicy: Ignore); `interceptor uninstall --node` removes the plugin from the node"
        }
        CallError::Silent { .. } | CallError::HungUp { .. } | CallError::Garbled { .. } => {
            "see the agent's log on this node; the runtime will retry"
        }
    };
    CniError::new(
        Code::TryAgain,
        format!("pod {pod} not started: it may belong to the mesh and would not be captured"),
        format!("{error}: {cure}"),
    )
}

/// Asks until there is an answer: an agent that is replaced is away for a moment. ADD twice is ADD
/// once, so one that died over it is followed by the next.
fn call_patiently(settings: &PluginSettings, request: &Request) -> Result<Response, CallError> {
    let start = Instant::now();
    let wait = settings.wait();
    loop {
        let left = wait.saturating_sub(start.elapsed()).max(AGAIN);
        let error = match protocol::call(&settings.socket, request.clone(), left) {
            Ok(answer) => return Ok(answer),
            Err(error @ (CallError::Absent { .. } | CallError::HungUp { .. })) => error,
            Err(error) => return Err(error),
        };
        if start.elapsed() + AGAIN > wait.min(REPLACED) {
            return Err(error);
        }
        thread::sleep(AGAIN);
    }
}

/// Is the pod still captured? Only the agent's no is a no.
pub(super) fn check(environment: &Environment, input: &[u8]) -> Result<(), CniError> {
    let settings = PluginSettings::read(input)?;
    let conf = Conf::read(input)?;
    if settings.uninstalled {
        return Ok(());
    }
    let Case::Asks(pod) = Case::of(environment, &settings)? else {
        return Ok(());
    };
    version::check(&conf.cni_version)?;
    let request = environment.add_request(pod)?;
    let pod = request.pod.clone();
    let wait = settings.wait().min(REPLACED);
    match protocol::call(&settings.socket, Request::Check(request), wait) {
        Ok(Response::Failed { reason }) => Err(CniError::new(
            Code::CheckFailed,
            format!("pod {pod} is not captured"),
            reason,
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            let line = format!("CHECK {pod}: not verified: {error}");
            log::tell(settings.log_file.as_deref(), &line);
            Ok(())
        }
    }
}

/// A sandbox is going. It goes whatever we do: what stands in its way keeps its pod terminating for
/// ever. An agent that does not hear of it finds out by itself.
pub(super) fn del(environment: &Environment, input: &[u8]) {
    let settings = PluginSettings::read(input).unwrap_or_default();
    let netns = environment.get("CNI_NETNS").map(Path::new);
    if settings.uninstalled {
        return cleanup::sweep(&settings, netns);
    }
    if matches!(Case::of(environment, &settings), Ok(Case::Passes(_))) {
        return;
    }
    let Some(request) = environment.del_request() else {
        return;
    };
    let what = format!("DEL {}", name(environment));
    if inform(&what, &settings, Request::Del(request)) == Informed::NoAgent {
        cleanup::sweep(&settings, netns);
    }
}

/// All but the named are gone.
pub(super) fn gc(input: &[u8]) {
    let settings = PluginSettings::read(input).unwrap_or_default();
    let Ok(conf) = Conf::read(input) else {
        return;
    };
    // Without the list nothing is known; an empty list says that there are none.
    let Some(valid) = conf.valid_attachments else {
        return;
    };
    let container_ids = valid.into_iter().map(|valid| valid.container_id).collect();
    let network = conf.name;
    let request = GcRequest {
        network,
        container_ids,
    };
    let _informed = inform("GC", &settings, Request::Gc(request));
}

#[derive(PartialEq, Eq)]
enum Informed {
    /// An agent is there, whether it has answered or not.
    Agent,
    NoAgent,
}

fn inform(what: &str, settings: &PluginSettings, request: Request) -> Informed {
    let Err(error) = protocol::call(&settings.socket, request, TELLING) else {
        return Informed::Agent;
    };
    let line = format!(
        "{what}: could not notify the agent, which will detect the change itself: \
         {error}"
    );
    log::tell(settings.log_file.as_deref(), &line);
    match error {
        CallError::Absent { .. } => Informed::NoAgent,
        _ => Informed::Agent,
    }
}
