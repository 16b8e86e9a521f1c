//! The difference from an injected pod to its original.
//!
//! Items of lists are found by their name, not their index: other webhooks and people may have
//! changed the pod since.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How one value becomes the original.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Undo {
    /// It did not exist.
    Remove,
    /// It had another value.
    Set(Set),
    /// Some entries of an object differ.
    Fields(Parts),
    /// The object did not exist. It stays if it has other entries than these.
    NewFields(Parts),
    /// Some items of a list differ.
    Items(Parts),
    /// The list did not exist. It stays if it has other items than these.
    NewItems(Parts),
    /// Some items of a list differ, and their order.
    Ordered(Ordered),
}

/// By key, or by the name of the item.
type Parts = BTreeMap<String, Undo>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Set {
    /// The original.
    value: Value,
    /// The injected value, unless it is a collection. A different one is a later change, which
    /// stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was: Option<Value>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ordered {
    items: Parts,
    /// The names of the original's items.
    order: Vec<String>,
}

/// Collections at most this deep are shared with other writers, such as `metadata.labels`: of those
/// that did not exist, only the injected entries are removed.
const SHARED_DEPTH: usize = 2;

/// How `injected` becomes `original`.
pub(super) fn between(original: &Value, injected: &Value) -> Undo {
    let root = difference(Some(original), Some(injected), 0);
    root.unwrap_or_else(|| Undo::Fields(Parts::new()))
}

/// Nothing if both are equal. Objects are compared by their parts only: comparing them as a whole first
/// would visit each value once for each of its parents.
fn difference(before: Option<&Value>, after: Option<&Value>, depth: usize) -> Option<Undo> {
    let Some(before) = before else {
        return Some(created(after?, depth));
    };
    match (before, after) {
        (Value::Object(before), Some(Value::Object(after))) => {
            let parts = fields(before, after, depth);
            (!parts.is_empty()).then_some(Undo::Fields(parts))
        }
        (Value::Array(old), Some(Value::Array(new))) if old != new => {
            Some(items(old, new, depth).unwrap_or_else(|| replaced(before.clone(), None)))
        }
        (before, Some(after)) if before == after => None,
        (before, after) => {
            let scalar = after.filter(|after| !after.is_object() && !after.is_array());
            Some(replaced(before.clone(), scalar.cloned()))
        }
    }
}

const fn replaced(value: Value, was: Option<Value>) -> Undo {
    Undo::Set(Set { value, was })
}

/// How a value that the injection created is removed.
fn created(value: &Value, depth: usize) -> Undo {
    match value {
        Value::Object(object) if depth <= SHARED_DEPTH && !object.is_empty() => {
            let entries = object.iter();
            let parts = entries.map(|(key, value)| (key.clone(), created(value, depth + 1)));
            Undo::NewFields(parts.collect())
        }
        Value::Array(list) if depth <= SHARED_DEPTH && !list.is_empty() => match names(list) {
            Some(names) => {
                let parts = names
                    .into_iter()
                    .map(|name| (name.to_owned(), Undo::Remove));
                Undo::NewItems(parts.collect())
            }
            None => Undo::Remove,
        },
        _ => Undo::Remove,
    }
}

fn fields(before: &Map<String, Value>, after: &Map<String, Value>, depth: usize) -> Parts {
    let old = before
        .iter()
        .map(|(key, value)| (key, Some(value), after.get(key)));
    let new = after.iter().filter(|(key, _)| !before.contains_key(*key));
    let new = new.map(|(key, value)| (key, None, Some(value)));
    parts(old.chain(new), depth)
}

/// Nothing if the items have no distinct names.
fn items(before: &[Value], after: &[Value], depth: usize) -> Option<Undo> {
    let (names_before, names_after) = (names(before)?, names(after)?);
    let old: BTreeMap<_, _> = names_before.iter().copied().zip(before).collect();
    let new: BTreeMap<_, _> = names_after.iter().copied().zip(after).collect();
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let pairs = all.into_iter();
    let items = parts(
        pairs.map(|name| (*name, old.get(name).copied(), new.get(name).copied())),
        depth,
    );
    let kept = names_after
        .iter()
        .filter(|name| names_before.contains(name));
    if kept.eq(&names_before) {
        return Some(Undo::Items(items));
    }
    let order = names_before.into_iter().map(str::to_owned).collect();
    Some(Undo::Ordered(Ordered { items, order }))
}

/// The differences of the parts of a collection.
fn parts<'a, Key: Into<String>>(
    pairs: impl Iterator<Item = (Key, Option<&'a Value>, Option<&'a Value>)>,
    depth: usize,
) -> Parts {
    let parts = pairs.filter_map(|(key, before, after)| {
        Some((key.into(), difference(before, after, depth + 1)?))
    });
    parts.collect()
}

/// The names of the items, if all have one of their own.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<_> = list
        .iter()
        .map_while(|item| item["name"].as_str())
        .collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    (names.len() == list.len() && distinct.len() == list.len()).then_some(names)
}

impl Undo {
    /// Restores the original in `value`, the injected pod.
    pub(super) fn apply(self, pod: &mut Value) {
        if let Some(original) = self.restored(Some(pod.take())) {
            *pod = original;
        }
    }

    /// The original of `current`; nothing if it did not exist.
    fn restored(self, current: Option<Value>) -> Option<Value> {
        match (self, current) {
            (Self::Remove, _) => None,
            (Self::Set(set), current) => match (set.was, current) {
                (Some(was), Some(current)) if was != current => Some(current),
                (Some(_), None) => None,
                _ => Some(set.value),
            },
            (Self::Fields(parts), Some(Value::Object(object))) => {
                Some(in_object(parts, object).into())
            }
            (Self::NewFields(parts), Some(Value::Object(object))) => {
                let object = in_object(parts, object);
                (!object.is_empty()).then(|| object.into())
            }
            (Self::Items(parts), Some(Value::Array(list))) => Some(in_list(parts, list).into()),
            (Self::NewItems(parts), Some(Value::Array(list))) => {
                let list = in_list(parts, list);
                (!list.is_empty()).then(|| list.into())
            }
            (Self::Ordered(Ordered { items, order }), Some(Value::Array(list))) => {
                let mut list = in_list(items, list);
                sort(&mut list, &order);
                Some(list.into())
            }
            // A later change made it something else.
            (_, current) => current,
        }
    }
}

fn in_object(parts: Parts, mut object: Map<String, Value>) -> Map<String, Value> {
    for (key, undo) in parts {
        let current = object.get_mut(&key).map(Value::take);
        match undo.restored(current) {
            Some(value) => {
                object.insert(key, value);
            }
            None => {
                object.shift_remove(&key);
            }
        }
    }
    object
}

fn in_list(mut parts: Parts, list: Vec<Value>) -> Vec<Value> {
    let mut restored = Vec::new();
    for item in list {
        let undo = item["name"].as_str().and_then(|name| parts.remove(name));
        match undo {
            Some(undo) => restored.extend(undo.restored(Some(item))),
            None => restored.push(item),
        }
    }
    restored.extend(parts.into_values().filter_map(|undo| match undo {
        // Its item was moved elsewhere, not changed.
        Undo::Set(Set { value, was: None }) => Some(value),
        _ => None,
    }));
    restored
}

/// Items that are not the original's stay behind them.
fn sort(list: &mut [Value], order: &[String]) {
    list.sort_by_key(|item| {
        let place = |name| order.iter().position(|one| one == name);
        item["name"].as_str().and_then(place).unwrap_or(usize::MAX)
    });
}
