//! Objects and their history by resource version, as etcd and the watch cache keep them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    resource::{Resource, Target},
    selector::Selector,
    status::Failure,
};

/// The key of an object: its group, its kind, its namespace, its name.
type Key = (&'static str, &'static str, String, String);

/// One change of an object.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    resource: &'static Resource,
    before: Option<Value>,
    after: Option<Value>,
}

/// All objects, and their history.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    /// The history up to this version is deleted.
    forgotten: u64,
    /// The remaining parts of lists that are returned in parts, by continue token.
    parts: BTreeMap<String, (u64, Vec<Value>)>,
}

/// A list, or a part of one.
pub(super) struct Listed {
    pub(super) version: u64,
    pub(super) items: Vec<Value>,
    /// The continue token of the rest, and the number of its items.
    pub(super) rest: Option<(String, usize)>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            // No version is 0, which means "any".
            version: 1000,
            objects: BTreeMap::new(),
            history: Vec::new(),
            forgotten: 1000,
            parts: BTreeMap::new(),
        }
    }
}

impl Store {
    /// The current resource version.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// An object.
    pub(super) fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&key(resource, namespace, name))
    }

    /// All objects of a kind, in the order of their names.
    pub(super) fn all(&self, resource: &Resource) -> impl Iterator<Item = &Value> {
        let Resource { group, plural, .. } = *resource;
        self.objects
            .iter()
            .filter(move |(key, _)| (key.0, key.1) == (group, plural))
            .map(|(_, object)| object)
    }

    /// Creates or replaces an object. Returns it with its new version.
    pub(super) fn put(&mut self, resource: &'static Resource, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = key(resource, &text("namespace"), &text("name"));
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version());
        let before = self.objects.insert(key, object.clone());
        self.remember(resource, before, Some(object.clone()));
        object
    }

    /// Removes an object. False if there is none.
    pub(super) fn remove(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> bool {
        let Some(mut before) = self.objects.remove(&key(resource, namespace, name)) else {
            return false;
        };
        self.version += 1;
        // The last state is reported with the version of the removal.
        before["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.remember(resource, Some(before), None);
        true
    }

    fn remember(
        &mut self,
        resource: &'static Resource,
        before: Option<Value>,
        after: Option<Value>,
    ) {
        self.history.push(Change {
            version: self.version,
            resource,
            before,
            after,
        });
    }

    /// Deletes the history: a watch from an older version must list again.
    pub(super) fn forget(&mut self) {
        // So that a watch from the current version must list again as well.
        self.version += 1;
        self.forgotten = self.version;
        self.parts.clear();
    }

    /// The selected objects of a kind, in all namespaces or in one.
    pub(super) fn list(&self, target: &Target<'_>, selector: &Selector) -> Vec<Value> {
        let Resource { group, plural, .. } = target.resource;
        let is_wanted = |(of_group, of, namespace, name): &Key| {
            (of_group, of) == (group, plural)
                && target.namespace.is_none_or(|wanted| wanted == namespace)
                && target.name.is_none_or(|wanted| wanted == name)
        };
        let wanted = self.objects.iter().filter(|(key, _)| is_wanted(key));
        wanted
            .map(|(_, object)| object)
            .filter(|object| selector.matches(object))
            .cloned()
            .collect()
    }

    /// The first part of `items`, at most `limit` long; the rest is stored.
    pub(super) fn cut(&mut self, version: u64, mut items: Vec<Value>, limit: usize) -> Listed {
        let rest = (limit > 0 && items.len() > limit).then(|| items.split_off(limit));
        let rest = rest.map(|rest| {
            let length = rest.len();
            let token = format!("{version}-{length}-{}", self.parts.len());
            self.parts.insert(token.clone(), (version, rest));
            (token, length)
        });
        Listed {
            version,
            items,
            rest,
        }
    }

    /// The next part.
    pub(super) fn next(&mut self, token: &str, limit: usize) -> Result<Listed, Failure> {
        let oldest = self.forgotten;
        let (version, items) = self.parts.remove(token).ok_or_else(|| {
            let version = token
                .split('-')
                .next()
                .and_then(|version| version.parse().ok());
            version.map_or_else(
                || Failure::bad_request("continue key is not valid"),
                |version| Failure::expired(version, oldest),
            )
        })?;
        Ok(self.cut(version, items, limit))
    }

    /// An error if the history after `version` is deleted.
    pub(super) fn ensure_known(&self, version: u64) -> Result<(), Failure> {
        if version < self.forgotten {
            return Err(Failure::expired(version, self.forgotten));
        }
        Ok(())
    }

    /// The changes after `version`, as watch events for this selector. An open watch misses
    /// nothing, even if the history is deleted for new watches.
    pub(super) fn since(
        &self,
        version: u64,
        target: &Target<'_>,
        selector: &Selector,
    ) -> Vec<Value> {
        let changes = self
            .history
            .iter()
            .filter(|change| change.version > version);
        changes
            .filter(|change| change.resource == target.resource)
            .filter_map(|change| change.event(target, selector))
            .collect()
    }
}

impl Change {
    fn event(&self, target: &Target<'_>, selector: &Selector) -> Option<Value> {
        let is_selected = |object: &&Value| {
            let metadata = &object["metadata"];
            let is = |wanted: Option<&str>, field: &str| {
                wanted.is_none_or(|wanted| metadata[field] == wanted)
            };
            is(target.namespace, "namespace") && is(target.name, "name") && selector.matches(object)
        };
        let before = self.before.as_ref().filter(is_selected);
        let after = self.after.as_ref().filter(is_selected);
        match (before, after) {
            (None, None) => None,
            (None, Some(object)) => Some(event("ADDED", object)),
            (Some(_), Some(object)) => Some(event("MODIFIED", object)),
            (Some(object), None) => {
                // It may only be selected no longer: in that case too the event has the old state
                // and the new version.
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                Some(event("DELETED", &object))
            }
        }
    }
}

/// A line of a watch.
pub(super) fn event(what: &str, object: &Value) -> Value {
    json!({"type": what, "object": object})
}

fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    let Resource { group, plural, .. } = *resource;
    (group, plural, namespace.to_owned(), name.to_owned())
}
