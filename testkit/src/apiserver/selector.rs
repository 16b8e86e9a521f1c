//! Field selectors, such as `spec.nodeName=one,status.phase!=Failed`, and label selectors.

use serde_json::Value;

/// The required values of an object's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    pointer: String,
    value: String,
    equal: bool,
}

/// The fields that the real one can select by, of the supported kinds.
const FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
];

impl Selector {
    /// Parses one; the error is the real one's.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts
            .map(Requirement::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The same, and these labels: `KEY=VALUE,...`. Other operators are not supported.
    pub(super) fn with_labels(mut self, text: &str) -> Result<Self, String> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let label = part.split_once('=');
            let (key, value) = label
                .filter(|(key, value)| !key.ends_with('!') && !value.starts_with('='))
                .ok_or_else(|| format!("this server knows only equal labels, not {part}"))?;
            let key = key.replace('~', "~0").replace('/', "~1");
            self.0.push(Requirement {
                pointer: format!("/metadata/labels/{key}"),
                value: value.to_owned(),
                equal: true,
            });
        }
        Ok(self)
    }

    /// The name of the one object that this selects, if it requires a name.
    #[must_use]
    pub(super) fn name(&self) -> Option<&str> {
        let mut named = self.0.iter();
        let named = named.find(|one| one.equal && one.pointer == "/metadata/name");
        named.map(|one| one.value.as_str())
    }

    /// Whether `object` is selected.
    #[must_use]
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|requirement| requirement.holds(object))
    }
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, String> {
        let (field, value, equal) = if let Some((field, value)) = text.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = text.split_once("==") {
            (field, value, true)
        } else if let Some((field, value)) = text.split_once('=') {
            (field, value, true)
        } else {
            return Err(format!("invalid field selector: {text}"));
        };
        if !FIELDS.contains(&field) {
            return Err(format!("field label not supported: {field}"));
        }
        Ok(Self {
            pointer: format!("/{}", field.replace('.', "/")),
            value: value.to_owned(),
            equal,
        })
    }

    fn holds(&self, object: &Value) -> bool {
        let value = object.pointer(&self.pointer);
        let value = value.map_or_else(String::new, |value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        (value == self.value) == self.equal
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_matching_objects_are_selected() {
        let selector = Selector::parse("spec.nodeName=one,status.phase!=Failed").unwrap();
        let pod = |node, phase| json!({"spec": {"nodeName": node}, "status": {"phase": phase}});
        assert!(selector.matches(&pod("one", "Running")));
        assert!(!selector.matches(&pod("two", "Running")));
        assert!(!selector.matches(&pod("one", "Failed")));
        assert!(!selector.matches(&json!({})));
        assert!(Selector::default().matches(&json!({})));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(Selector::parse("spec.nodename=one").is_err());
        assert!(Selector::parse("spec.nodeName").is_err());
    }
}
