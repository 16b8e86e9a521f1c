//! The patches that templates make: rendered, or found in the memo.

use std::{borrow::Cow, fmt::Display};

use serde_json::{Value, json};

use super::{
    INIT_CONTAINERS, VALIDATION, api_access,
    config::{Config, Interception},
    containers,
    context::Context,
    data,
    engine::Template,
    memo::{Entry, Key},
    strip, yaml,
};
use crate::{Subject, refusal::Problem};

/// The templates, for one pod.
pub(super) struct Overlays<'a> {
    original: &'a Value,
    /// `original` with a fixed name in place of a random one.
    canonical: Cow<'a, Value>,
    context: &'a Context<'a>,
    /// All that a template depends on besides the configuration.
    input: Vec<u8>,
}

impl<'a> Overlays<'a> {
    pub(super) fn of(original: &'a Value, context: &'a Context<'a>) -> Result<Self, Problem> {
        let canonical = api_access::canonical(original).map_or(Cow::Borrowed(original), Cow::Owned);
        let input = input(&canonical, context.subject);
        Ok(Self {
            original,
            input: input.map_err(|error| Problem::Other(error.to_string()))?,
            canonical,
            context,
        })
    }

    /// The patch that the template of this name makes.
    pub(super) fn get(&self, name: &str) -> Result<Value, Problem> {
        let memo = &self.context.config.memo;
        let key = Key::of(&self.input, name);
        match memo.find(&key) {
            Some(Entry::Overlay(text)) => parse(name, &text),
            Some(Entry::OfOnePod) => self.render(name, self.original),
            None => {
                let overlay = self.render(name, &self.canonical)?;
                let text = overlay.to_string();
                if text.contains(api_access::CANONICAL) {
                    memo.insert(key, Entry::OfOnePod);
                    return self.render(name, self.original);
                }
                memo.insert(key, Entry::Overlay(text.into()));
                Ok(overlay)
            }
        }
    }

    fn render(&self, name: &str, pod: &Value) -> Result<Value, Problem> {
        let config = self.context.config;
        let stripped = strip::strip(pod, config)?;
        let data = data::of(&stripped, self.context);
        let template = find(name, config)?;
        let text = template
            .render(&data)
            .map_err(|error| problem(name, error))?;
        let mut overlay = match yaml::read_lenient(&text) {
            Ok(Value::Null) => json!({}),
            Ok(overlay) if overlay.is_object() => overlay,
            Ok(_) => return Err(problem(name, "its result is not an object")),
            Err(error) => return Err(problem(name, format!("its result is not YAML: {error}"))),
        };
        let options = &config.options;
        if options.interception == Interception::Agent && !options.keep_validation {
            containers::take(&mut overlay, INIT_CONTAINERS, VALIDATION);
        }
        Ok(overlay)
    }
}

fn find<'a>(name: &str, config: &'a Config) -> Result<&'a Template, Problem> {
    config.templates.get(name).ok_or_else(|| {
        let known: Vec<_> = config.templates.keys().map(String::as_str).collect();
        Problem::Other(format!(
            "template {name:?} does not exist: use one of {}",
            known.join(", ")
        ))
    })
}

fn input(pod: &Value, subject: &Subject) -> serde_json::Result<Vec<u8>> {
    let owner = subject.owner.as_ref().map(|owner| {
        [
            &owner.api_version,
            &owner.kind,
            &owner.name,
            &owner.namespace,
        ]
    });
    let annotations = &subject.namespace_annotations;
    serde_json::to_vec(&(&subject.namespace, annotations, owner, pod))
}

fn parse(name: &str, text: &str) -> Result<Value, Problem> {
    let parsed = serde_json::from_str(text);
    parsed.map_err(|error| problem(name, error))
}

fn problem(template: &str, problem: impl Display) -> Problem {
    Problem::Other(format!("template {template}: {problem}"))
}

#[cfg(test)]
mod tests;
