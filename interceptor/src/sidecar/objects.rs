//! Watches all objects of a kind.

use std::{collections::BTreeMap, fmt::Debug, future, mem};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

/// Namespace and name of an object.
pub(super) type Name = (String, String);

/// What is kept of all objects of `api`: when all are listed, and after each change of it.
pub(super) fn watch_all<K, T>(
    api: Api<K>,
    keep: impl Fn(K) -> Option<T> + Send + 'static,
) -> impl Stream<Item = watcher::Result<BTreeMap<Name, T>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone + PartialEq + Send,
{
    let mut objects = Objects::default();
    let events = watcher(api, watcher::Config::default()).default_backoff();
    events.filter_map(move |event| {
        let changed = event.map(|event| objects.apply(event, &keep));
        future::ready(changed.transpose())
    })
}

struct Objects<T> {
    current: BTreeMap<Name, T>,
    /// A list that is not complete yet.
    listed: BTreeMap<Name, T>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            listed: BTreeMap::new(),
        }
    }
}

impl<T: Clone + PartialEq> Objects<T> {
    /// All objects, if a list is complete, or if what is kept of one has changed.
    fn apply<K: Resource>(
        &mut self,
        event: Event<K>,
        keep: impl Fn(K) -> Option<T>,
    ) -> Option<BTreeMap<Name, T>> {
        match event {
            Event::Init => {
                self.listed.clear();
                return None;
            }
            Event::InitApply(object) => {
                let name = name(&object);
                self.listed.extend(keep(object).map(|kept| (name, kept)));
                return None;
            }
            Event::InitDone => self.current = mem::take(&mut self.listed),
            Event::Apply(object) => {
                let name = name(&object);
                let kept = keep(object);
                if self.current.get(&name) == kept.as_ref() {
                    return None;
                }
                self.current.remove(&name);
                self.current.extend(kept.map(|kept| (name, kept)));
            }
            Event::Delete(object) => {
                self.current.remove(&name(&object))?;
            }
        }
        Some(self.current.clone())
    }
}

fn name<K: Resource>(object: &K) -> Name {
    let metadata = object.meta();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::ResourceExt as _;

    use super::*;

    fn namespace(name: &str, label: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace
            .labels_mut()
            .insert("l".to_owned(), label.to_owned());
        namespace
    }

    #[test]
    fn only_changes_of_what_is_kept_are_reported() {
        let mut objects = Objects::default();
        let mut apply = |event| {
            let kept = objects.apply(event, |namespace: Namespace| {
                namespace
                    .labels()
                    .get("l")
                    .filter(|label| !label.is_empty())
                    .cloned()
            });
            let labels = kept.map(|kept| kept.into_values().collect::<Vec<_>>());
            labels.map(|labels| labels.join(" "))
        };
        let some = |labels: &str| Some(labels.to_owned());
        assert_eq!(apply(Event::Init), None);
        assert_eq!(apply(Event::InitApply(namespace("a", "1"))), None);
        // The list fails and is retried.
        assert_eq!(apply(Event::Init), None);
        assert_eq!(apply(Event::InitApply(namespace("b", "2"))), None);
        assert_eq!(apply(Event::InitDone), some("2"));
        assert_eq!(apply(Event::Apply(namespace("b", "2"))), None);
        assert_eq!(apply(Event::Apply(namespace("c", ""))), None);
        assert_eq!(apply(Event::Apply(namespace("b", "3"))), some("3"));
        assert_eq!(apply(Event::Apply(namespace("a", "1"))), some("1 3"));
        assert_eq!(apply(Event::Apply(namespace("b", ""))), some("1"));
        assert_eq!(apply(Event::Delete(namespace("b", "3"))), None);
        assert_eq!(apply(Event::Delete(namespace("a", "1"))), some(""));
    }
}
