//! Events about the objects that the webhook uses.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Reporter},
};

use crate::api_server::events;

/// The Events' reporting controller.
const CONTROLLER: &str = "interceptor-webhook";

/// What is wrong with an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// A configuration was kept out.
    InvalidInjectionConfig,
    /// A certificate was replaced.
    UnusableCertificate,
}

impl Cause {
    /// The reason in the Event, and what the webhook was doing.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidInjectionConfig => ("InvalidInjectionConfig", "LoadConfiguration"),
            Self::UnusableCertificate => ("UnusableCertificate", "ReplaceCertificate"),
        }
    }
}

/// An object of the core group, of a kind such as `Secret`. With its UID, `kubectl describe` shows
/// its Events.
pub(super) fn object(
    kind: &str,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}

/// Publishes a Warning about an object. A failure is only logged.
pub(super) async fn warn(client: Client, about: ObjectReference, cause: Cause, note: String) {
    let (reason, action) = cause.words();
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    };
    events::publish(client, Reporter::from(CONTROLLER), event, &about).await;
}
