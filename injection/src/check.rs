//! Why a pod is injected, or is not: what each injector of a cluster does with a new pod, and whether
//! that explains an existing one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Config, Outcome, Owner, Subject,
    decision::{
        self, Decision, Reason, Rules,
        webhooks::{Called, Configuration, Creation, INJECTION, REVISION},
    },
    inject, owner, pod,
    refusal::Refusal,
};

mod notes;
mod sidecar;
#[cfg(test)]
mod tests;

pub use notes::{Note, NoteKind};
pub use sidecar::Sidecar;

/// An injector of the cluster.
#[derive(Debug)]
pub struct Injector {
    /// Its webhooks.
    pub configuration: Configuration,
    /// What it does when it is called, or why that is not known.
    pub behavior: Result<Behavior, String>,
}

/// What an injector does with pods for which it is called.
#[derive(Debug)]
pub enum Behavior {
    /// Only its decision is known.
    Decides(Rules),
    /// It is our own, with this configuration.
    Injects(Box<Config>),
}

/// A namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// The object, or null if only the labels are known.
    pub object: Value,
}

/// A pod, or the template of one.
#[derive(Clone, Copy, Debug)]
pub struct Subjected<'a> {
    /// The object.
    pub pod: &'a Value,
    /// Where it is, or will be.
    pub namespace: &'a Namespace,
    /// Whether the pod exists. Otherwise, it is a template, or to be created.
    pub exists: bool,
    /// The workload of a template.
    pub owner: Option<&'a Owner>,
}

/// What one injector does with a pod that is created now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The webhook that is called, or may be.
    pub webhook: Option<String>,
    /// What happens.
    pub result: AnswerResult,
}

/// What happens to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerResult {
    /// The pod gets a sidecar.
    Injected(Reason),
    /// The injector is called, and does not inject.
    Skipped(Reason),
    /// The injector is not called.
    NotCalled(Reason),
    /// The pod is refused.
    Refused(Refusal),
    /// This is not known, for the given reason.
    Unknown(String),
}

impl AnswerResult {
    /// The rule that decides, as a label; empty where none does.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Injected(reason) | Self::Skipped(reason) | Self::NotCalled(reason) => {
                reason.label()
            }
            Self::Refused(_) | Self::Unknown(_) => "",
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Injected(reason) | Self::Skipped(reason) | Self::NotCalled(reason) => {
                reason.words().to_owned()
            }
            Self::Refused(refusal) => refusal.to_string(),
            Self::Unknown(problem) => problem.clone(),
        }
    }

    /// Whether the injector adds a sidecar, if that is known.
    #[must_use]
    pub const fn is_injected(&self) -> Option<bool> {
        match self {
            Self::Injected(_) => Some(true),
            Self::Skipped(_) | Self::NotCalled(_) | Self::Refused(_) => Some(false),
            Self::Unknown(_) => None,
        }
    }
}

/// What all injectors together do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overall {
    /// The pod gets a sidecar.
    Injected,
    /// The pod gets none.
    NotInjected,
    /// The pod is refused.
    Refused,
    /// This is not known.
    Unknown,
}

impl Overall {
    /// The result in a word, for programs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::NotInjected => "not_injected",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Everything about one pod.
#[derive(Debug)]
pub struct Report<'a> {
    /// What each injector does with a pod like this that is created now.
    pub answers: Vec<(&'a Injector, Answer)>,
    /// The sidecar that the pod has.
    pub sidecar: Option<Sidecar>,
    /// What else its owner should know.
    pub notes: Vec<Note>,
}

impl Report<'_> {
    /// What happens to a pod like this that is created now.
    #[must_use]
    pub fn overall(&self) -> Overall {
        let any = |wanted: fn(&AnswerResult) -> bool| {
            self.answers
                .iter()
                .any(|(_, answer)| wanted(&answer.result))
        };
        if any(|result| matches!(result, AnswerResult::Refused(_))) {
            Overall::Refused
        } else if any(|result| result.is_injected() == Some(true)) {
            Overall::Injected
        } else if any(|result| result.is_injected().is_none()) {
            Overall::Unknown
        } else {
            Overall::NotInjected
        }
    }

    /// The names of the configurations that inject.
    fn injecting(&self) -> Vec<&str> {
        let injecting = self.answers.iter().filter(|(_, answer)| {
            let result = &answer.result;
            result.is_injected() == Some(true)
        });
        injecting
            .map(|(injector, _)| &*injector.configuration.name)
            .collect()
    }
}

/// What every injector does with a pod, and whether that explains the state of an existing one.
#[must_use]
pub fn check<'a>(subject: Subjected<'_>, injectors: &'a [Injector]) -> Report<'a> {
    let answers = injectors
        .iter()
        .map(|injector| (injector, injector.answer(subject)));
    let mut report = Report {
        answers: answers.collect(),
        sidecar: Sidecar::of(subject.pod),
        notes: Vec::new(),
    };
    report.notes = notes::of(subject, &report);
    report
}

impl Subjected<'_> {
    /// What webhooks are selected by.
    #[must_use]
    pub fn creation(&self) -> Creation<'_> {
        let labels = self.namespace.labels.iter();
        let labels = labels.map(|(key, value)| (&**key, &**value));
        let of_pod = pod::strings(&self.pod["metadata"]["labels"]);
        Creation::new(&self.namespace.name, labels.collect(), of_pod)
    }

    fn decide(&self, rules: &Rules) -> Decision {
        decision::decide(self.pod, &self.namespace.name, rules)
    }
}

impl Injector {
    fn answer(&self, subject: Subjected<'_>) -> Answer {
        let creation = subject.creation();
        let (webhook, conditions) = match self.configuration.called(&creation) {
            Called::No(reason) => {
                return Answer {
                    webhook: None,
                    result: AnswerResult::NotCalled(reason),
                };
            }
            Called::Yes(webhook) => (webhook, None),
            Called::IfConditions(webhook) => (webhook, Some(webhook.match_conditions().join(", "))),
        };
        let mut result = self.when_called(subject);
        // Conditions matter only if the call changes something.
        let matters = !matches!(result, AnswerResult::Skipped(_));
        if let Some(conditions) = conditions.filter(|_| matters) {
            result = AnswerResult::Unknown(format!(
                "the API server evaluates the matchConditions of this webhook ({conditions}), and \
                 this command cannot; if they are true: {}",
                result.words()
            ));
        }
        Answer {
            webhook: Some(webhook.name.clone()),
            result,
        }
    }

    fn when_called(&self, subject: Subjected<'_>) -> AnswerResult {
        match &self.behavior {
            Err(problem) => AnswerResult::Unknown(format!(
                "the injector is called, and its rules are not known: {problem}"
            )),
            Ok(Behavior::Decides(rules)) => match subject.decide(rules) {
                Decision {
                    inject: true,
                    reason,
                } => AnswerResult::Injected(reason),
                Decision { reason, .. } => AnswerResult::Skipped(reason),
            },
            Ok(Behavior::Injects(config)) => injected(subject, config),
        }
    }
}

fn injected(subject: Subjected<'_>, config: &Config) -> AnswerResult {
    let of = Subject {
        namespace: subject.namespace.name.clone(),
        owner: subject.owner.cloned(),
        ..Subject::default()
    };
    match inject(subject.pod, &of, config) {
        Ok(Outcome::Inject(injected)) => AnswerResult::Injected(injected.reason),
        Ok(Outcome::Skip(reason)) => AnswerResult::Skipped(reason),
        Err(refusal) => AnswerResult::Refused(refusal),
    }
}
