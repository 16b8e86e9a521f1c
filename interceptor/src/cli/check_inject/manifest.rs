//! Pods and namespaces of manifests.

use anyhow::{Result, anyhow};
use interceptor_injection::{
    documents::{self, Piece},
    workloads,
};
use serde_json::Value;

use super::Found;
use crate::cli::manifests::Source;

/// Adds what `source` has. Objects that name no namespace are in `namespace`.
pub(super) fn read(
    source: &Source,
    namespace: &str,
    found: &mut Vec<Found>,
    declared: &mut Vec<Value>,
) -> Result<()> {
    let name = source.name();
    let pieces = documents::parse(&source.text).map_err(|error| anyhow!("{name}: {error}"))?;
    for piece in pieces {
        let Piece::Document(document) = piece else {
            continue;
        };
        let object = document.value;
        found.extend(pods(&object, &name, namespace));
        declared.extend(objects(object).filter(|object| object["kind"] == "Namespace"));
    }
    Ok(())
}

fn pods(object: &Value, file: &str, namespace: &str) -> Vec<Found> {
    let workloads = workloads::of(object).into_iter();
    let found = workloads.filter_map(|mut workload| {
        let pod = object.pointer(&workload.pointer)?.clone();
        let owner = &mut workload.owner;
        if owner.namespace.is_empty() {
            namespace.clone_into(&mut owner.namespace);
        }
        Some(Found {
            object: format!("{}/{}", owner.kind.to_lowercase(), owner.name),
            file: Some(file.to_owned()),
            namespace: owner.namespace.clone(),
            pod,
            exists: false,
            owner: (owner.kind != "Pod").then_some(workload.owner),
        })
    });
    found.collect()
}

/// The object, or the items of a List.
fn objects(mut object: Value) -> Box<dyn Iterator<Item = Value>> {
    if object["kind"] != "List" {
        return Box::new([object].into_iter());
    }
    match object["items"].take() {
        Value::Array(items) => Box::new(items.into_iter().flat_map(objects)),
        _ => Box::new([].into_iter()),
    }
}
