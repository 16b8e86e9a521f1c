//! Sidecar injection as a pure function: a pod and a configuration in, a pod or a reason out.
//!
//! Nothing here does I/O, reads a clock or the environment, or decodes a pod into a typed struct:
//! fields that are newer than our types must survive. The command `interceptor inject` and the
//! admission webhook supply the configuration and print or send the result.
//!
//! A pod passes these stages, one module each:
//!
//! 1. `decision`: is the pod injected, and by which rule?
//! 2. `annotation_values`: are the values of its annotations valid?
//! 3. The sidecar: Istio's template (`istio`), or our own (`builtin`).
//! 4. `record`: what `uninject` needs to restore the original.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    istio::{AnnotationCheck, MemoCounts},
    refusal::{Problem, Refusal},
    uninject::Uninjected,
};

mod annotation_values;
pub mod builtin;
pub mod check;
mod containers;
pub mod decision;
pub mod diff;
pub mod documents;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
pub mod istio;
mod merge;
mod overrides;
pub mod owner;
mod pod;
pub mod record;
pub mod refusal;
mod replaced;
pub mod review;
mod status;
pub mod uninject;
pub mod workloads;

pub use replaced::Replaced;

/// What the caller knows of a pod besides its object.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The namespace in which the pod is created: that of the request, or of the manifest.
    pub namespace: String,
    /// The annotations of the namespace. `OpenShift` assigns UIDs there.
    pub namespace_annotations: BTreeMap<String, String>,
    /// The workload that the pod belongs to, if the caller knows a better one than the pod's
    /// owner reference: the object of a manifest.
    pub owner: Option<Owner>,
    /// Environment variables from the path of the webhook's URL, for the proxy.
    pub environment: BTreeMap<String, String>,
}

/// A workload: `TypeMeta` and `DeploymentMeta` in Istio's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `apiVersion`
    pub api_version: String,
    /// `kind`
    pub kind: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
}

/// The result for a pod that is not refused.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The pod stays as it is.
    Skip(decision::Reason),
    /// The pod gets a sidecar.
    Inject(Injected),
}

/// An injected pod.
#[derive(Clone, Debug)]
pub struct Injected {
    /// The whole pod.
    pub pod: Value,
    /// The rule that decided.
    pub reason: decision::Reason,
    /// The sidecar that the pod had before.
    pub replaced: Option<Replaced>,
    /// What the pod's owner should know, one sentence each.
    pub warnings: Vec<String>,
}

/// The injector's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which pods are injected.
    pub rules: decision::Rules,
    /// What they get.
    pub sidecar: Sidecar,
}

/// The sidecar that pods get.
#[derive(Clone, Debug)]
pub enum Sidecar {
    /// An Envoy with a static configuration, and the check of annotations about interception.
    Builtin(Box<builtin::Config>, AnnotationCheck),
    /// That of Istio's templates.
    Istio(Arc<istio::Config>),
    /// Another one on some nodes.
    ByNode(Box<ByNode>),
}

/// The sidecar of pods whose node is known before they are created, and that of all others.
#[derive(Clone, Debug)]
pub struct ByNode {
    /// The nodes that differ from others.
    pub nodes: BTreeSet<String>,
    /// The sidecar of pods on these nodes.
    pub there: Sidecar,
    /// The sidecar of all other pods.
    pub elsewhere: Sidecar,
}

impl ByNode {
    /// The sidecar of `pod`.
    fn of(&self, pod: &Value) -> &Sidecar {
        let node = pod["spec"]["nodeName"].as_str();
        if node.is_some_and(|node| self.nodes.contains(node)) {
            &self.there
        } else {
            &self.elsewhere
        }
    }
}

impl Sidecar {
    /// How often a rendered template was found in the memo. The built-in sidecar has no template.
    #[must_use]
    pub fn memo_counts(&self) -> MemoCounts {
        match self {
            Self::Builtin(..) => MemoCounts::default(),
            Self::Istio(config) => config.memo_counts(),
            Self::ByNode(sidecars) => {
                let [there, elsewhere] =
                    [&sidecars.there, &sidecars.elsewhere].map(Self::memo_counts);
                MemoCounts {
                    hits: there.hits + elsewhere.hits,
                    misses: there.misses + elsewhere.misses,
                }
            }
        }
    }

    fn inject(&self, pod: &Value, subject: &Subject) -> Result<(Value, Vec<String>), Refusal> {
        match self {
            Self::Builtin(config, check) => {
                let pod = without_istio(pod)?;
                let injected = builtin::inject(&pod, config);
                with_problems(annotation_values::problems(&pod, check), injected)
            }
            Self::Istio(config) => istio::inject(pod, subject, config),
            Self::ByNode(sidecars) => sidecars.of(pod).inject(pod, subject),
        }
    }
}

/// The built-in sidecar replaces one that Istio injected.
fn without_istio(pod: &Value) -> Result<Value, Refusal> {
    Ok(match uninject::uninject(pod)? {
        Uninjected::Untouched => pod.clone(),
        Uninjected::Exact(original) | Uninjected::BestEffort(original, _) => original,
    })
}

/// Decides about `pod`, and injects it. An earlier injection by this function is undone before, so
/// a second one changes nothing.
pub fn inject(pod: &Value, subject: &Subject, config: &Config) -> Result<Outcome, Refusal> {
    pod::check_shape(pod)?;
    let decision = decision::decide(pod, &subject.namespace, &config.rules);
    if !decision.inject {
        return Ok(Outcome::Skip(decision.reason));
    }
    let recorded = record::original(pod)?;
    let original = recorded.as_ref().unwrap_or(pod);
    let (injected, mut warnings) = config.sidecar.inject(original, subject)?;
    let (injected, warning) = record::add(original, injected);
    warnings.extend(warning);
    if let Some(choice) = decision::ignored_choice(original) {
        warnings.push(format!(
            "{} {choice:?} has no effect: expected \"true\" or \"false\"",
            decision::INJECT
        ));
    }
    Ok(Outcome::Inject(Injected {
        pod: injected,
        reason: decision.reason,
        replaced: Replaced::of(pod),
        warnings,
    }))
}

/// `result`, or all problems at once.
fn with_problems<T>(mut problems: Vec<Problem>, result: Result<T, Refusal>) -> Result<T, Refusal> {
    let result = result.map_err(|Refusal(others)| problems.extend(others));
    match result {
        Ok(value) if problems.is_empty() => Ok(value),
        _ => Err(Refusal(problems)),
    }
}

#[cfg(test)]
mod tests;
