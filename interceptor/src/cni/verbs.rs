//! The CNI verbs.

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
    protocol::{self, CallError, PodName, Request, Response},
    version,
};

/// How long the plugin waits for an agent to listen: as long as a restart takes.
const AGENT_RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Limit for DEL and GC, whose results the plugin does not need.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

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
    let log_line = |line: &str| log::write(settings.log_file.as_deref(), line);
    if settings.uninstalled {
        log_line(&format!("ADD {}: allowed: uninstalled", name(environment)));
        cleanup::sweep(&settings, None);
        return Ok(conf.result());
    }
    match Case::of(environment, &settings)? {
        Case::Passes(reason) => {
            log_line(&format!("ADD {}: allowed: {reason}", name(environment)));
            Ok(conf.result())
        }
        Case::Asks(pod) => {
            let name = pod.name.clone();
            let done = request_add(environment, &conf, &settings, pod);
            match &done {
                Ok(what) => log_line(&format!("ADD {name}: {what}")),
                Err(error) => log_line(&format!("ADD {name}: {error}")),
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

/// Returns the result for the log.
fn request_add(
    environment: &Environment,
    conf: &Conf,
    settings: &PluginSettings,
    pod: Pod,
) -> Result<String, CniError> {
    version::check(&conf.cni_version)?;
    let request = environment.add_request(pod)?;
    let pod = request.pod.clone();
    match call_with_retries(settings, &Request::Add(request)) {
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
        Err(error) => Err(no_response(&pod, &error)),
    }
}

fn no_response(pod: &PodName, error: &CallError) -> CniError {
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
fn call_with_retries(settings: &PluginSettings, request: &Request) -> Result<Response, CallError> {
    let start = Instant::now();
    let wait = settings.wait();
    loop {
        let left = wait.saturating_sub(start.elapsed()).max(RETRY_INTERVAL);
        let error = match protocol::call(&settings.socket, request.clone(), left) {
            Ok(answer) => return Ok(answer),
            Err(error @ (CallError::Absent { .. } | CallError::HungUp { .. })) => error,
            Err(error) => return Err(error),
        };
        if start.elapsed() + RETRY_INTERVAL > wait.min(AGENT_RESTART_TIMEOUT) {
            return Err(error);
        }
        thread::sleep(RETRY_INTERVAL);
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
    let wait = settings.wait().min(AGENT_RESTART_TIMEOUT);
    match protocol::call(&settings.socket, Request::Check(request), wait) {
        Ok(Response::Failed { reason }) => Err(CniError::new(
            Code::CheckFailed,
            format!("pod {pod} is not captured"),
            reason,
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            let line = format!("CHECK {pod}: not verified: {error}");
            log::write(settings.log_file.as_deref(), &line);
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
    if notify(&what, &settings, Request::Del(request)) == Notified::NoAgent {
        cleanup::sweep(&settings, netns);
    }
}

/// GC: sandboxes may have been deleted without a DEL.
pub(super) fn gc(input: &[u8]) {
    let settings = PluginSettings::read(input).unwrap_or_default();
    let Ok(conf) = Conf::read(input) else {
        return;
    };
    // The specification requires the list. The agent does not need it: it detects which network
    // namespaces were deleted.
    if conf.valid_attachments.is_some() {
        let _notified = notify("GC", &settings, Request::Gc);
    }
}

#[derive(PartialEq, Eq)]
enum Notified {
    /// An agent is there, whether it has answered or not.
    Agent,
    NoAgent,
}

fn notify(what: &str, settings: &PluginSettings, request: Request) -> Notified {
    let Err(error) = protocol::call(&settings.socket, request, NOTIFY_TIMEOUT) else {
        return Notified::Agent;
    };
    let line = format!(
        "{what}: could not notify the agent, which will detect the change itself: \
         {error}"
    );
    log::write(settings.log_file.as_deref(), &line);
    match error {
        CallError::Absent { .. } => Notified::NoAgent,
        _ => Notified::Agent,
    }
}
