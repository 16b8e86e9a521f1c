//! What the owner of a pod should know besides the answers of the injectors.

use serde_json::Value;

use super::{AnswerResult, INJECTION, Overall, REVISION, Report, Subjected, decision, owner, pod};

/// Something about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What, for programs.
    pub kind: NoteKind,
    /// A sentence.
    pub text: String,
}

/// The kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// The cluster has no injector.
    NoInjector,
    /// Two injectors inject the pod.
    TwoInjectors,
    /// A static pod, which no webhook can change.
    StaticPod,
    /// The pod has no sidecar, and a new one gets one.
    SidecarMissing,
    /// The pod has a sidecar, and a new one gets none.
    SidecarUnexpected,
    /// The pod has the sidecar of another revision than a new one.
    OtherRevision,
    /// The webhooks were created after the pod.
    CreatedBeforeWebhook,
    /// A label was set after the pod was created.
    CreatedBeforeLabel,
    /// Pods are created without a sidecar while the webhook fails.
    FailuresIgnored,
    /// The pod's label or annotation has neither of the values that decide.
    ChoiceIgnored,
}

impl NoteKind {
    /// The kind in a word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoInjector => "no_injector",
            Self::TwoInjectors => "two_injectors",
            Self::StaticPod => "static_pod",
            Self::SidecarMissing => "sidecar_missing",
            Self::SidecarUnexpected => "sidecar_unexpected",
            Self::OtherRevision => "other_revision",
            Self::CreatedBeforeWebhook => "created_before_webhook",
            Self::CreatedBeforeLabel => "created_before_label",
            Self::FailuresIgnored => "failures_ignored",
            Self::ChoiceIgnored => "choice_ignored",
        }
    }

    /// Whether the user should act.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::TwoInjectors
                | Self::SidecarMissing
                | Self::SidecarUnexpected
                | Self::OtherRevision
        )
    }
}

/// The kubelet's copy of a static pod has this annotation.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn of(subject: Subjected<'_>, report: &Report<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |kind, text: String| notes.push(Note { kind, text });
    if report.answers.is_empty() {
        add(
            NoteKind::NoInjector,
            "no MutatingWebhookConfiguration of the cluster belongs to an injector".to_owned(),
        );
    }
    if let [first, rest @ ..] = &report.injecting()[..]
        && let [_, ..] = rest
    {
        add(
            NoteKind::TwoInjectors,
            format!(
                "the injectors of {first} and {} both inject this pod: select one of them with the \
                 labels istio-injection and istio.io/rev of the namespace and the pod",
                rest.join(" and ")
            ),
        );
    }
    if let Some(choice) = decision::ignored_choice(subject.pod) {
        add(
            NoteKind::ChoiceIgnored,
            format!(
                "{} {choice:?} has no effect: expected \"true\" or \"false\"",
                decision::INJECT
            ),
        );
    }
    if subject.exists {
        notes.extend(of_existing(subject, report));
    }
    notes
}

/// Why an existing pod differs from a new one.
fn of_existing(subject: Subjected<'_>, report: &Report<'_>) -> Vec<Note> {
    let note = |kind, text: String| Note { kind, text };
    if pod::annotation(subject.pod, MIRROR).is_some() {
        return vec![note(
            NoteKind::StaticPod,
            "a static pod, which the kubelet starts from a file: no webhook can change it; add the \
             sidecar to the file with `interceptor inject`"
                .to_owned(),
        )];
    }
    match (&report.sidecar, report.overall()) {
        (None, Overall::Injected) => {
            let mut notes = vec![note(NoteKind::SidecarMissing, missing(subject))];
            notes.extend(causes(subject, report));
            notes
        }
        (Some(sidecar), Overall::NotInjected) => {
            let by_hand = if sidecar.is_ours {
                "`interceptor inject`"
            } else {
                "`istioctl kube-inject`"
            };
            vec![note(
                NoteKind::SidecarUnexpected,
                format!(
                    "the pod has a sidecar, but a new pod like this gets none from a webhook: it was \
                     injected before labels or webhooks changed, or by hand ({by_hand})"
                ),
            )]
        }
        (Some(sidecar), Overall::Injected) => {
            let revision = report.answers.iter().find_map(|(injector, answer)| {
                let is_injected = answer.result.is_injected() == Some(true);
                injector.configuration.revision().filter(|_| is_injected)
            });
            match (&sidecar.revision, revision) {
                (Some(old), Some(new)) if old != new => vec![note(
                    NoteKind::OtherRevision,
                    format!(
                        "the pod has the sidecar of revision {old}, and a new one gets that of \
                         revision {new}: {}",
                        recreate(subject)
                    ),
                )],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn missing(subject: Subjected<'_>) -> String {
    format!(
        "the pod has no sidecar, but a new pod like this gets one: {}",
        recreate(subject)
    )
}

/// What replaces the pod by a new one.
fn recreate(subject: Subjected<'_>) -> String {
    let namespace = &subject.namespace.name;
    let owner = owner::of_pod(subject.pod, namespace);
    let (kind, name) = (owner.kind.to_lowercase(), &owner.name);
    match kind.as_str() {
        "deployment" | "statefulset" | "daemonset" => {
            format!("restart it with `kubectl rollout restart {kind}/{name} -n {namespace}`")
        }
        "pod" => format!("delete pod {name} in namespace {namespace} and create it again"),
        _ => format!("delete the pod, and {kind}/{name} in namespace {namespace} replaces it"),
    }
}

/// What can have kept the sidecar out. The times have seconds, in one format, in UTC: their order is
/// that of the texts.
fn causes(subject: Subjected<'_>, report: &Report<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |kind, text| notes.push(Note { kind, text });
    let created = subject.pod["metadata"]["creationTimestamp"].as_str();
    let created = created.unwrap_or_default();
    for (injector, answer) in &report.answers {
        let AnswerResult::Injected(_) = answer.result else {
            continue;
        };
        let configuration = &injector.configuration;
        let name = &configuration.name;
        if let Some(later) = configuration
            .created
            .as_deref()
            .filter(|time| *time > created)
        {
            add(
                NoteKind::CreatedBeforeWebhook,
                format!(
                    "the pod was created at {created}, before the webhook configuration {name} \
                     ({later})"
                ),
            );
        }
        let mut webhooks = configuration.webhooks.iter();
        let called = webhooks.find(|webhook| Some(&webhook.name) == answer.webhook.as_ref());
        if called.is_some_and(|webhook| webhook.ignores_failures) {
            add(
                NoteKind::FailuresIgnored,
                format!(
                    "the webhook configuration {name} has failurePolicy Ignore: a pod that is \
                     created while the webhook does not respond gets no sidecar"
                ),
            );
        }
    }
    let labels = [
        ("namespace", &subject.namespace.object, INJECTION),
        ("namespace", &subject.namespace.object, REVISION),
        ("pod", subject.pod, decision::INJECT),
        ("pod", subject.pod, REVISION),
    ];
    for (whose, object, label) in labels {
        if let Some(later) = label_set(object, label).filter(|time| *time > created) {
            add(
                NoteKind::CreatedBeforeLabel,
                format!(
                    "the pod was created at {created}, and the {whose}'s label {label} was last set \
                     at {later}"
                ),
            );
        }
    }
    notes
}

/// When the client that owns a label last changed the object's labels.
fn label_set<'a>(object: &'a Value, label: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(label)?;
    let owned = format!("f:{label}");
    let managers = object["metadata"]["managedFields"].as_array()?.iter();
    let owners = managers.filter(|manager| {
        let labels = &manager["fieldsV1"]["f:metadata"]["f:labels"];
        labels.get(&owned).is_some()
    });
    owners.filter_map(|manager| manager["time"].as_str()).max()
}
