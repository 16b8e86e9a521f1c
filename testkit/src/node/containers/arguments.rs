//! A container's variables, and their expansion in its arguments, as kubelet does it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde_json::Value;

/// The variables of a container; `object` is its pod with a status.
pub(super) fn variables(container: &Container, object: &Value) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(_) => field(variable, object)?,
            None => expand(variable.value.as_deref().unwrap_or_default(), &variables),
        };
        variables.insert(variable.name.clone(), value);
    }
    Ok(variables)
}

/// The value of a variable from a field of the pod.
fn field(variable: &EnvVar, object: &Value) -> Result<String> {
    let source = variable.value_from.as_ref();
    let field = source.and_then(|source| source.field_ref.as_ref());
    let path = &field
        .context("only fieldRef can be resolved here")?
        .field_path;
    let found = object.pointer(&format!("/{}", path.replace('.', "/")));
    match found {
        Some(Value::String(text)) => Ok(text.clone()),
        other => bail!("{}: the pod's {path} is {other:?}", variable.name),
    }
}

/// Expands `$(NAME)`; `$$` is `$`. A name that is no variable stays as it is.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|text| text.split_once(')'));
        match reference.and_then(|(name, after)| Some((variables.get(name)?, after))) {
            Some((value, after)) => {
                expanded += value;
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_by_kubelet() {
        let variables = [("A".to_owned(), "1".to_owned())].into();
        for (text, expected) in [
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn variables_come_from_values_and_fields() -> Result<()> {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "app",
            "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "URL", "value": "http://$(IP)/"},
            ],
        }))?;
        let object = serde_json::json!({"status": {"podIP": "10.1.0.2"}});
        let found = variables(&container, &object)?;
        assert_eq!(found["URL"], "http://10.1.0.2/");
        assert!(variables(&container, &Value::Null).is_err());
        Ok(())
    }
}
