//! The admission webhook's part of injection: an `AdmissionReview` in, an `AdmissionReview` out.
//!
//! Versions `v1` and `v1beta1` of `admission.k8s.io` are answered in kind. A review that cannot be
//! processed is refused, never let through: the caller always gets a response to send.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{Injected, Outcome, Subject, decision::Reason, refusal::Refusal};

mod path;
#[cfg(test)]
mod tests;

/// The values of [`Review::result`], for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReviewResult {
    /// The pod gets a sidecar.
    Injected(Reason),
    /// The pod is not injected.
    Skipped(Reason),
    /// The request is not the creation of a pod, and is allowed unchanged.
    NotApplicable,
    /// The pod is refused.
    Refused,
    /// The request is not a review.
    Invalid,
}

impl ReviewResult {
    /// The result as a label of metrics and a value of audit annotations.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Injected(_) => "injected",
            Self::Skipped(_) => "skipped",
            Self::NotApplicable => "not_applicable",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
        }
    }

    /// The rule that decided, as a label; empty where no rule did.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Injected(reason) | Self::Skipped(reason) => reason.label(),
            Self::NotApplicable | Self::Refused | Self::Invalid => "",
        }
    }
}

/// A processed review.
#[derive(Clone, Debug)]
pub struct Review {
    /// What happened.
    pub result: ReviewResult,
    /// The `AdmissionReview` to send.
    pub response: Value,
}

/// Processes the review in `body`, which was posted to `path`.
///
/// `inject` decides about the pod. `audit` is added to the audit annotations, such as the
/// generation of the configuration.
pub fn review(
    body: &[u8],
    path: &str,
    audit: &[(&str, String)],
    inject: impl FnOnce(&Value, &Subject) -> Result<Outcome, Refusal>,
) -> Review {
    let envelope = match Envelope::parse(body) {
        Ok(envelope) => envelope,
        Err((envelope, problem)) => return envelope.invalid(&problem),
    };
    if envelope.kind().is_empty() {
        return envelope.invalid("the review's request names no kind");
    }
    if !envelope.is_pod_creation() {
        let result = ReviewResult::NotApplicable;
        return envelope.allow(result, audit, Map::new());
    }
    let pod = &envelope.request["object"];
    if !pod["spec"].is_object() {
        return envelope.invalid("the review's object has no spec");
    }
    let subject = Subject {
        namespace: envelope.namespace(),
        environment: path::environment(path),
        ..Subject::default()
    };
    match inject(pod, &subject) {
        Ok(Outcome::Skip(reason)) => {
            envelope.allow(ReviewResult::Skipped(reason), audit, Map::new())
        }
        Ok(Outcome::Inject(injected)) => envelope.patch(pod, &injected, audit),
        Err(refusal) => envelope.refuse(&refusal, audit),
    }
}

/// What a response repeats of its request.
#[derive(Debug)]
struct Envelope {
    api_version: String,
    request: Value,
}

impl Envelope {
    /// On failure also what is known, so that the response can be matched to its request.
    fn parse(body: &[u8]) -> Result<Self, (Self, String)> {
        let mut review: Value = match serde_json::from_slice(body) {
            Ok(review) => review,
            Err(error) => return Err((Self::unknown(), format!("not valid JSON: {error}"))),
        };
        let kind = review["kind"].as_str().unwrap_or_default();
        if kind != "AdmissionReview" {
            let problem = format!("kind is {kind:?}, and must be \"AdmissionReview\"");
            return Err((Self::unknown(), problem));
        }
        let api_version = review["apiVersion"].as_str().unwrap_or_default().to_owned();
        let envelope = Self {
            request: review["request"].take(),
            ..Self::unknown()
        };
        if !["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&api_version.as_str()) {
            let problem = format!(
                "apiVersion is {api_version:?}, and must be admission.k8s.io/v1 or \
                 admission.k8s.io/v1beta1"
            );
            return Err((envelope, problem));
        }
        let envelope = Self {
            api_version,
            ..envelope
        };
        if envelope.request.is_object() {
            Ok(envelope)
        } else {
            Err((envelope, "the review has no request".to_owned()))
        }
    }

    fn unknown() -> Self {
        Self {
            api_version: "admission.k8s.io/v1".to_owned(),
            request: Value::Null,
        }
    }

    /// Neither an update nor a subresource. (`istioctl kube-inject` leaves the operation empty.)
    fn is_pod_creation(&self) -> bool {
        let text = |field: &str| self.request[field].as_str().unwrap_or_default();
        self.kind() == "Pod"
            && ["CREATE", ""].contains(&text("operation"))
            && text("subResource").is_empty()
    }

    /// The kind of the object. (`istioctl kube-inject` names it in the object only.)
    fn kind(&self) -> &str {
        let named = self.request["kind"]["kind"].as_str();
        let kind = named.filter(|kind| !kind.is_empty());
        kind.or(self.request["object"]["kind"].as_str())
            .unwrap_or_default()
    }

    /// A pod's own namespace may be empty at its creation.
    fn namespace(&self) -> String {
        let own = self.request["object"]["metadata"]["namespace"].as_str();
        let request = self.request["namespace"].as_str();
        let found = own.filter(|namespace| !namespace.is_empty()).or(request);
        found.unwrap_or_default().to_owned()
    }

    fn patch(&self, pod: &Value, injected: &Injected, audit: &[(&str, String)]) -> Review {
        let patch = json_patch::diff(pod, &injected.pod);
        let text = serde_json::to_string(&patch).unwrap_or_default();
        let mut members = Map::new();
        members.insert("patchType".to_owned(), json!("JSONPatch"));
        members.insert("patch".to_owned(), json!(STANDARD.encode(text)));
        if !injected.warnings.is_empty() {
            members.insert("warnings".to_owned(), json!(injected.warnings));
        }
        self.allow(ReviewResult::Injected(injected.reason), audit, members)
    }

    fn allow(
        &self,
        result: ReviewResult,
        audit: &[(&str, String)],
        mut members: Map<String, Value>,
    ) -> Review {
        members.insert("allowed".to_owned(), json!(true));
        self.respond(result, audit, members)
    }

    fn refuse(&self, refusal: &Refusal, audit: &[(&str, String)]) -> Review {
        let message = format!("interceptor: the pod cannot get a sidecar: {refusal}");
        let mut members = Map::new();
        members.insert("allowed".to_owned(), json!(false));
        members.insert("status".to_owned(), status(&message));
        self.respond(ReviewResult::Refused, audit, members)
    }

    fn invalid(&self, problem: &str) -> Review {
        let message = format!("interceptor: the admission review is invalid: {problem}");
        let mut members = Map::new();
        members.insert("allowed".to_owned(), json!(false));
        members.insert("status".to_owned(), status(&message));
        self.respond(ReviewResult::Invalid, &[], members)
    }

    fn respond(
        &self,
        result: ReviewResult,
        audit: &[(&str, String)],
        members: Map<String, Value>,
    ) -> Review {
        let mut response = Map::new();
        let uid = self.request["uid"].as_str().unwrap_or_default();
        response.insert("uid".to_owned(), json!(uid));
        response.extend(members);
        response.insert(
            "auditAnnotations".to_owned(),
            json!(audit_annotations(result, audit)),
        );
        Review {
            result,
            response: json!({
                "apiVersion": self.api_version,
                "kind": "AdmissionReview",
                "response": response,
            }),
        }
    }
}

/// The API server puts the webhook's name before the keys.
fn audit_annotations<'a>(
    result: ReviewResult,
    audit: &'a [(&'a str, String)],
) -> BTreeMap<&'a str, &'a str> {
    let own = [("decision", result.label()), ("reason", result.reason())];
    let given = audit.iter().map(|(key, value)| (*key, value.as_str()));
    own.into_iter()
        .chain(given)
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn status(message: &str) -> Value {
    json!({"status": "Failure", "message": message, "reason": "BadRequest", "code": 400})
}
