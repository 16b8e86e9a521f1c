//! What `uninject` needs to restore the original pod, in an annotation of the injected one.

use serde_json::Value;

use crate::{
    pod,
    refusal::{Problem, Refusal},
};

mod undo;

use undo::Undo;

/// The annotation that holds the record.
pub const UNDO: &str = "interceptor.dev/undo";

/// Kubernetes limits the size of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// `injected` with a record of what it has in place of `original`. Without a record if there is no
/// space for it.
pub(crate) fn add(original: &Value, mut injected: Value) -> (Value, Option<String>) {
    set(&mut injected, String::new());
    let undo = undo::between(original, &injected);
    // A tree of JSON values can be written as JSON.
    let text = serde_json::to_string(&undo).unwrap_or_default();
    if size_of_annotations(&injected) + text.len() > MAX_ANNOTATIONS {
        pod::remove(&mut injected, &["metadata", "annotations", UNDO]);
        let warning = format!(
            "the annotation {UNDO} is left out, as annotations have at most {MAX_ANNOTATIONS} \
             bytes: uninject cannot restore the original exactly"
        );
        return (injected, Some(warning));
    }
    set(&mut injected, text);
    (injected, None)
}

fn set(pod: &mut Value, text: String) {
    pod::annotations_mut(pod).insert(UNDO.to_owned(), text.into());
}

fn size_of_annotations(pod: &Value) -> usize {
    let annotations = pod::strings(&pod["metadata"]["annotations"]);
    let sizes = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len());
    sizes.sum()
}

/// The pod as it was before its injection, if it has a record of it. What changed since stays,
/// unless the injection is what it changed.
pub(crate) fn original(pod: &Value) -> Result<Option<Value>, Refusal> {
    let Some(text) = pod["metadata"]["annotations"][UNDO].as_str() else {
        return Ok(None);
    };
    let undo: Undo = serde_json::from_str(text).map_err(|error| {
        Refusal(vec![Problem::Annotation {
            name: UNDO.to_owned(),
            value: text.to_owned(),
            problem: format!(
                "not a record of this program: {error}. Remove the annotation if the pod is not \
                 injected"
            ),
        }])
    })?;
    let mut original = pod.clone();
    undo.apply(&mut original);
    Ok(Some(original))
}

#[cfg(test)]
mod tests;
