//! What the command prints.

use std::fmt::Write as _;

use interceptor_injection::{
    check::{Answer, AnswerResult, Injector, Namespace, Overall, Report, Subjected, check},
    decision::webhooks::{Configuration, Target},
};
use serde::Serialize;

use super::Found;
use crate::cli::output;

/// A pod and its result.
pub(super) struct Checked<'a> {
    found: &'a Found,
    report: Report<'a>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(found: &'a Found, namespace: &Namespace, injectors: &'a [Injector]) -> Self {
        let subject = Subjected {
            pod: &found.pod,
            namespace,
            exists: found.exists,
            owner: found.owner.as_ref(),
        };
        Self {
            found,
            report: check(subject, injectors),
        }
    }

    /// A refusal, an open question, or something that its owner should change.
    pub(super) fn has_warning(&self) -> bool {
        let mut answers = self.report.answers.iter().map(|(_, answer)| &answer.result);
        let is_open = |result: &AnswerResult| {
            matches!(result, AnswerResult::Refused(_) | AnswerResult::Unknown(_))
        };
        let mut notes = self.report.notes.iter();
        answers.any(is_open) || notes.any(|note| note.kind.is_warning())
    }
}

/// One block for each pod.
pub(super) fn text(checked: &[Checked<'_>]) -> String {
    let blocks: Vec<_> = checked.iter().map(block).collect();
    blocks.join("\n")
}

fn block(Checked { found, report }: &Checked<'_>) -> String {
    let Found {
        object, namespace, ..
    } = found;
    let state = match &report.sidecar {
        _ if !found.exists => String::new(),
        None => "no sidecar; ".to_owned(),
        Some(sidecar) => {
            let revision = sidecar.revision.as_ref();
            let revision = revision.map_or_else(String::new, |name| format!(", revision {name}"));
            let containers = sidecar.containers.join(", ");
            format!("has a sidecar ({containers}{revision}); ")
        }
    };
    let new = new_pod(report.overall(), found.exists);
    let mut text = format!("{object} in namespace {namespace}: {state}{new}\n");
    if !report.answers.is_empty() {
        let mut table = output::table(["WEBHOOK", "REVISION", "INJECTED", "RULE", "REASON"]);
        for (injector, answer) in &report.answers {
            table.add_row(row(injector, answer));
        }
        text += &output::lines(table);
    }
    for note in &report.notes {
        let level = if note.kind.is_warning() {
            "warning"
        } else {
            "note"
        };
        // Writing to a String cannot fail.
        let _written = writeln!(text, "{level}: {}", note.text);
    }
    text
}

const fn new_pod(overall: Overall, exists: bool) -> &'static str {
    match (overall, exists) {
        (Overall::Injected, false) => "injected",
        (Overall::NotInjected, false) => "not injected",
        (Overall::Refused, false) => "refused",
        (Overall::Unknown, false) => "unknown whether injected",
        (Overall::Injected, true) => "a new pod like it is injected",
        (Overall::NotInjected, true) => "a new pod like it is not injected",
        (Overall::Refused, true) => "a new pod like it is refused",
        (Overall::Unknown, true) => "it is unknown whether a new pod like it is injected",
    }
}

fn row(injector: &Injector, answer: &Answer) -> [String; 5] {
    let result = match &answer.result {
        AnswerResult::Injected(_) => "yes",
        AnswerResult::Skipped(_) | AnswerResult::NotCalled(_) => "no",
        AnswerResult::Refused(_) => "refused",
        AnswerResult::Unknown(_) => "unknown",
    };
    let rule = match answer.result.rule() {
        "" => "-",
        rule => rule,
    };
    let words = answer.result.words();
    let reason = match &answer.webhook {
        Some(webhook) => format!("webhook {webhook} is called: {words}"),
        None => format!("no webhook is called: {words}"),
    };
    let revision = injector.configuration.revision().unwrap_or("-");
    [
        injector.configuration.name.clone(),
        revision.to_owned(),
        result.to_owned(),
        rule.to_owned(),
        reason,
    ]
}

/// The result for programs. Fields may be added, and keep their meaning.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    object: &'a str,
    namespace: &'a str,
    file: Option<&'a str>,
    exists: bool,
    /// `injected`, `not_injected`, `refused` or `unknown`
    result: &'static str,
    injectors: Vec<JsonAnswer<'a>>,
    sidecar: Option<JsonSidecar<'a>>,
    notes: Vec<JsonNote<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonAnswer<'a> {
    configuration: &'a str,
    revision: Option<&'a str>,
    service: Option<String>,
    webhook: Option<&'a str>,
    injected: Option<bool>,
    rule: Option<&'static str>,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSidecar<'a> {
    containers: &'a [String],
    revision: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonNote<'a> {
    kind: &'static str,
    warning: bool,
    text: &'a str,
}

/// A list, also for one pod.
pub(super) fn documents<'a>(checked: &'a [Checked<'_>]) -> Vec<impl Serialize + use<'a>> {
    checked.iter().map(json_of).collect()
}

fn json_of<'a>(Checked { found, report }: &'a Checked<'_>) -> Json<'a> {
    let answers = report.answers.iter().map(|(injector, answer)| {
        let rule = answer.result.rule();
        JsonAnswer {
            configuration: &injector.configuration.name,
            revision: injector.configuration.revision(),
            service: service(&injector.configuration),
            webhook: answer.webhook.as_deref(),
            injected: answer.result.is_injected(),
            rule: Some(rule).filter(|rule| !rule.is_empty()),
            reason: answer.result.words(),
        }
    });
    let notes = report.notes.iter().map(|note| JsonNote {
        kind: note.kind.label(),
        warning: note.kind.is_warning(),
        text: &note.text,
    });
    Json {
        object: &found.object,
        namespace: &found.namespace,
        file: found.file.as_deref(),
        exists: found.exists,
        result: report.overall().label(),
        injectors: answers.collect(),
        sidecar: report.sidecar.as_ref().map(|sidecar| JsonSidecar {
            containers: &sidecar.containers,
            revision: sidecar.revision.as_deref(),
        }),
        notes: notes.collect(),
    }
}

/// `NAMESPACE/NAME` of the injector's Service.
fn service(configuration: &Configuration) -> Option<String> {
    configuration
        .webhooks
        .iter()
        .find_map(|webhook| match &webhook.target {
            Target::Service {
                namespace, name, ..
            } => Some(format!("{namespace}/{name}")),
            Target::Url(_) => None,
        })
}
