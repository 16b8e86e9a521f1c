//! Other injectors of the cluster: a pod that they take too would be injected twice.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{StreamExt as _, pin_mut};
use interceptor_injection::{
    Outcome, Subject,
    decision::webhooks::{Configuration, OtherInjectors},
};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, ResourceExt as _,
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use tracing::{info, warn};

use super::metrics::Metrics;
use crate::api_server;

/// What is known of other injectors. Copies share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Others(Arc<RwLock<Arc<OtherInjectors>>>);

impl Others {
    fn current(&self) -> Arc<OtherInjectors> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn replace(&self, others: OtherInjectors) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(others);
    }

    /// Adds a warning to an injected pod for each other injector that is certainly called for it.
    /// Returns whether there is one.
    pub(super) fn warn(&self, outcome: &mut Outcome, pod: &Value, subject: &Subject) -> bool {
        let Outcome::Inject(injected) = outcome else {
            return false;
        };
        let others = self.current();
        let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let labels: BTreeMap<_, _> = labels.collect();
        let before = injected.warnings.len();
        let called = others.also_called(&subject.namespace, &labels);
        injected.warnings.extend(called.map(|configuration| {
            format!(
                "another injector, {configuration}, is called for this pod too: label the pod or its \
                 namespace for one of them"
            )
        }));
        injected.warnings.len() > before
    }
}

/// Follows the configurations of all webhooks, of which `own` is ours. Ends without a client.
pub(super) async fn watch(client: Option<Client>, own: &str, others: &Others, metrics: &Metrics) {
    let Some(client) = client else {
        return;
    };
    let resource = ApiResource::erase::<MutatingWebhookConfiguration>(&());
    // Raw objects: a selector that is newer than our types must not be lost.
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut known = Known::default();
    let mut problem = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if known.apply(event) {
                    problem.clear();
                    let found = OtherInjectors::of(own, known.configurations());
                    report(own, &others.current(), &found);
                    metrics.other_injectors.set(&found);
                    others.replace(found);
                }
            }
            Err(error) => {
                let text = api_server::error_text(&error);
                if text != problem {
                    warn!(
                        "cannot watch the MutatingWebhookConfigurations, so pods that two injectors \
                         take may go unnoticed; retrying: {text}"
                    );
                }
                problem = text;
            }
        }
    }
}

/// Logs what changes.
fn report(own: &str, before: &OtherInjectors, after: &OtherInjectors) {
    let was_known = |configuration| {
        let mut before = before.overlaps();
        before.any(|overlap| overlap.configuration == configuration)
    };
    for overlap in after.overlaps() {
        if !was_known(overlap.configuration) {
            warn!(
                "the webhook {} of the MutatingWebhookConfiguration {} can select pods that {} of \
                 {own} selects: they are injected twice. Select one injector for each namespace and \
                 pod with the labels istio-injection and istio.io/rev; `interceptor check-inject` \
                 shows which injectors take a pod",
                overlap.webhook, overlap.configuration, overlap.ours,
            );
        }
    }
    for overlap in before.overlaps() {
        let name = overlap.configuration;
        let mut remaining = after.overlaps();
        if !remaining.any(|overlap| overlap.configuration == name) {
            info!("the MutatingWebhookConfiguration {name} selects no pod of {own} any more");
        }
    }
}

/// The objects of the watch.
#[derive(Default)]
struct Known {
    objects: BTreeMap<String, Value>,
    listed: BTreeMap<String, Value>,
}

impl Known {
    /// Whether the objects may have changed. An incomplete list removes nothing.
    fn apply(&mut self, event: Event<DynamicObject>) -> bool {
        let is_part = matches!(event, Event::Init | Event::InitApply(_));
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(object.name_any(), raw(&object));
            }
            Event::InitDone => self.objects = mem::take(&mut self.listed),
            Event::Apply(object) => {
                self.objects.insert(object.name_any(), raw(&object));
            }
            Event::Delete(object) => {
                self.objects.remove(&object.name_any());
            }
        }
        !is_part
    }

    fn configurations(&self) -> Vec<Configuration> {
        let parsed = self.objects.iter().filter_map(|(name, object)| {
            Configuration::parse(object)
                .inspect_err(|problem| {
                    warn!("the MutatingWebhookConfiguration {name} is not evaluated: {problem}");
                })
                .ok()
        });
        parsed.collect()
    }
}

fn raw(object: &DynamicObject) -> Value {
    // An object that was read as JSON can be written as JSON.
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use interceptor_injection::{Injected, decision::Reason};
    use serde_json::json;

    use super::*;

    fn object(name: &str, revision: &str) -> DynamicObject {
        let selector = json!({"matchLabels": {"istio.io/rev": revision}});
        let object = json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": format!("{name}.istio.io"),
                "clientConfig": {"service": {"namespace": name, "name": "injector", "path": "/inject"}},
                "namespaceSelector": selector,
                "rules": [{
                    "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["pods"],
                }],
            }],
        });
        serde_json::from_value(object).unwrap()
    }

    fn names(known: &Known) -> Vec<String> {
        let configurations = known.configurations();
        configurations.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn only_a_complete_list_counts() {
        let mut known = Known::default();
        known.apply(Event::Init);
        assert!(!known.apply(Event::InitApply(object("a", "x"))));
        assert!(known.apply(Event::InitDone));
        assert_eq!(names(&known), ["a"]);
        known.apply(Event::Init);
        assert!(!known.apply(Event::InitApply(object("b", "x"))));
        assert_eq!(names(&known), ["a"]);
        known.apply(Event::InitDone);
        assert_eq!(names(&known), ["b"]);
        assert!(known.apply(Event::Apply(object("c", "x"))));
        assert!(known.apply(Event::Delete(object("b", "x"))));
        assert_eq!(names(&known), ["c"]);
    }

    #[test]
    fn an_injected_pod_gets_a_warning_and_a_skipped_one_none() {
        let mut known = Known::default();
        for (name, revision) in [("ours", "x"), ("same", "x"), ("other", "y")] {
            known.apply(Event::Apply(object(name, revision)));
        }
        let others = Others::default();
        others.replace(OtherInjectors::of("ours", known.configurations()));
        let pod = json!({"metadata": {}});
        let mut outcome = Outcome::Inject(Injected {
            replaced: None,
            pod: pod.clone(),
            reason: Reason::PolicyEnabled,
            warnings: Vec::new(),
        });
        let subject = Subject::default();
        assert!(others.warn(&mut outcome, &pod, &subject));
        let Outcome::Inject(injected) = &outcome else {
            panic!("{outcome:?}")
        };
        let start = "another injector, same, is called for this pod too";
        assert!(injected.warnings[0].starts_with(start));
        let mut skipped = Outcome::Skip(Reason::PolicyDisabled);
        assert!(!others.warn(&mut skipped, &pod, &subject));
    }
}
