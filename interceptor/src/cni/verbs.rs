//! The CNI verbs.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    call::{Environment, PodArgs},
    cleanup,
    conf::{Conf, FailurePolicy, PluginSettings},
    error::{CniError, Code},
    log,
    protocol::{self, CallError, Request, Response},
    version,
};
use crate::pod_name::PodName;

/// How long the plugin retries to connect: as long as a restart of the agent takes.
const AGENT_RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between connection attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Limit for DEL and GC, whose results the plugin does not need.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a pod needs a request to the agent.
enum Handling {
    /// The pod starts without a request, for this reason.
    Allow(String),
    Request(PodArgs),
}

impl Handling {
    fn of(environment: &Environment, settings: &PluginSettings) -> Result<Self, CniError> {
        let Some(pod) = environment.pod()? else {
            return Ok(Self::Allow("CNI_ARGS names no pod".to_owned()));
        };
        let passes = settings.passes(&pod.name);
        Ok(passes.map_or(Self::Request(pod), Self::Allow))
    }
}

/// ADD: returns the previous plugins' result once the pod is captured or skipped.
pub(super) fn add(environment: &Environment, input: &[u8]) -> Result<String, CniError> {
    let settings = PluginSettings::read(input)?;
    let conf = Conf::read(input)?;
    let log_line = |line: &str| log::write(settings.log_file.as_deref(), line);
    if settings.uninstalled {
        log_line(&format!("ADD {}: allowed: uninstalled", name(environment)));
        cleanup::sweep(&settings, None);
        return Ok(conf.result());
    }
    match Handling::of(environment, &settings)? {
        Handling::Allow(reason) => {
            log_line(&format!("ADD {}: allowed: {reason}", name(environment)));
            Ok(conf.result())
        }
        Handling::Request(pod) => {
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

/// The pod's or the sandbox's name for the log.
fn name(environment: &Environment) -> String {
    let pod = environment.pod().ok().flatten();
    let sandbox = || environment.get("CNI_CONTAINERID").unwrap_or("-").to_owned();
    pod.map_or_else(sandbox, |pod| pod.name.to_string())
}

/// Sends ADD to the agent. Returns the result for the log.
fn request_add(
    environment: &Environment,
    conf: &Conf,
    settings: &PluginSettings,
    pod: PodArgs,
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
    let fix = match error {
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
        format!("{error}: {fix}"),
    )
}

/// Retries until the agent responds: during an upgrade no agent listens for a moment. ADD is
/// idempotent, so a request that an agent did not complete before it exited is sent to the next one.
fn call_with_retries(settings: &PluginSettings, request: &Request) -> Result<Response, CallError> {
    let start = Instant::now();
    let timeout = settings.timeout();
    loop {
        let left = timeout.saturating_sub(start.elapsed()).max(RETRY_INTERVAL);
        let error = match protocol::call(&settings.socket, request.clone(), left) {
            Ok(response) => return Ok(response),
            Err(error @ (CallError::Absent { .. } | CallError::HungUp { .. })) => error,
            Err(error) => return Err(error),
        };
        if start.elapsed() + RETRY_INTERVAL > timeout.min(AGENT_RESTART_TIMEOUT) {
            return Err(error);
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// CHECK: fails only if the agent responds that the pod is not captured.
pub(super) fn check(environment: &Environment, input: &[u8]) -> Result<(), CniError> {
    let settings = PluginSettings::read(input)?;
    let conf = Conf::read(input)?;
    if settings.uninstalled {
        return Ok(());
    }
    let Handling::Request(pod) = Handling::of(environment, &settings)? else {
        return Ok(());
    };
    version::check(&conf.cni_version)?;
    let request = environment.add_request(pod)?;
    let pod = request.pod.clone();
    let timeout = settings.timeout().min(AGENT_RESTART_TIMEOUT);
    match protocol::call(&settings.socket, Request::Check(request), timeout) {
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

/// DEL: never fails, as a failure would keep the pod terminating forever. An agent that does not
/// receive the request detects the deletion itself.
pub(super) fn del(environment: &Environment, input: &[u8]) {
    let settings = PluginSettings::read(input).unwrap_or_default();
    let netns = environment.get("CNI_NETNS").map(Path::new);
    if settings.uninstalled {
        return cleanup::sweep(&settings, netns);
    }
    if matches!(Handling::of(environment, &settings), Ok(Handling::Allow(_))) {
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
    /// An agent listens, even if it has not responded.
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
