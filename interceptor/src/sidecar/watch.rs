//! Watches the parts of a configuration.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt, future,
    path::PathBuf,
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watch_object},
    },
};
use serde_json::Value;
use tracing::{info, warn};

use super::{
    files,
    inputs::{Inputs, Reading},
    native::Kubelets,
    nodes,
    origin::{ConfigMapName, Origin},
    plan::Plan,
    proxy_configs::{self, Absence},
};
use crate::api_server;

/// What files and cluster contain: when all of it is known, and after each change. Without a client,
/// only files are watched.
pub(crate) fn watch(plan: &Plan, client: Option<&Client>) -> impl Stream<Item = Inputs> + use<> {
    let mut state = State {
        origins: plan.origins().into_iter().cloned().collect(),
        awaits_kubelets: client.is_some() && plan.depends_on_kubelets(),
        awaits_proxy_configs: client.is_some() && plan.depends_on_proxy_configs(),
        ..State::default()
    };
    // Complete at once if nothing is read.
    let initial = state.complete();
    let changed = stream::select_all(notices(plan, client)).filter_map(move |notice| {
        state.apply(notice);
        future::ready(state.complete())
    });
    stream::iter(initial).chain(changed)
}

/// A part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    ConfigMap(ConfigMapName),
    Nodes,
    ProxyConfigs,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(name) => name.fmt(formatter),
            Self::Nodes => formatter.write_str("the nodes"),
            Self::ProxyConfigs => formatter.write_str("the ProxyConfigs"),
        }
    }
}

/// What a watch reports.
enum Notice {
    Files(BTreeMap<PathBuf, Reading<String>>),
    ConfigMap(ConfigMapName, Option<Box<ConfigMap>>),
    Kubelets(Kubelets),
    ProxyConfigs(Vec<Value>),
    /// There are none to read, for this reason. This is retried.
    NoProxyConfigs(Absence),
    /// The part cannot be watched, for this reason. This is retried.
    Failed(Part, String),
}

impl Notice {
    /// The part of the cluster that is watched without an error.
    fn watched(&self) -> Option<Part> {
        match self {
            Self::ConfigMap(name, _) => Some(Part::ConfigMap(name.clone())),
            Self::Kubelets(_) => Some(Part::Nodes),
            Self::ProxyConfigs(_) => Some(Part::ProxyConfigs),
            Self::Files(_) | Self::NoProxyConfigs(_) | Self::Failed(..) => None,
        }
    }
}

fn notices(plan: &Plan, client: Option<&Client>) -> Vec<BoxStream<'static, Notice>> {
    let mut streams = Vec::new();
    let files = plan.files();
    if !files.is_empty() {
        streams.push(files::watch(files).map(Notice::Files).boxed());
    }
    let Some(client) = client else {
        return streams;
    };
    for name in plan.config_maps() {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &name.namespace);
        let found = watch_object(maps, &name.name).default_backoff();
        let part = Part::ConfigMap(name.clone());
        let notice = notice(part, move |found: Option<ConfigMap>| {
            Notice::ConfigMap(name.clone(), found.map(Box::new))
        });
        streams.push(found.map(notice).boxed());
    }
    if plan.depends_on_kubelets() {
        let kubelets = nodes::watch_kubelets(client.clone(), plan.minimum_version());
        let notice = notice(Part::Nodes, Notice::Kubelets);
        streams.push(kubelets.map(notice).boxed());
    }
    if plan.depends_on_proxy_configs() {
        let resources = proxy_configs::watch(client.clone());
        let notice = notice(Part::ProxyConfigs, |found| match found {
            Ok(resources) => Notice::ProxyConfigs(resources),
            Err(absence) => Notice::NoProxyConfigs(absence),
        });
        streams.push(resources.map(notice).boxed());
    }
    streams
}

fn notice<T>(part: Part, changed: impl Fn(T) -> Notice) -> impl Fn(watcher::Result<T>) -> Notice {
    move |result| match result {
        Ok(found) => changed(found),
        Err(error) => Notice::Failed(part.clone(), api_server::error_text(&error)),
    }
}

/// Why the watch of a part has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Absence(Absence),
    /// An error that may be another one each time.
    Error,
}

/// What is known of the parts.
#[derive(Default)]
struct State {
    origins: Vec<Origin>,
    awaits_kubelets: bool,
    awaits_proxy_configs: bool,
    inputs: Inputs,
    /// The parts that have been read.
    known: BTreeSet<Part>,
    /// The parts whose watch has failed, until it succeeds, each with what has been logged.
    failed: BTreeMap<Part, Failure>,
    returned: Option<Inputs>,
}

impl State {
    fn apply(&mut self, notice: Notice) {
        if let Some(part) = notice.watched() {
            if self.failed.remove(&part).is_some() {
                info!("{part} can be watched now");
            }
            self.known.insert(part);
        }
        match notice {
            Notice::Files(files) => {
                let texts = files.into_iter();
                let texts = texts.map(|(path, text)| (Origin::File(path), text));
                self.inputs.texts.extend(texts);
            }
            Notice::ConfigMap(name, found) => {
                let found = found.as_deref();
                self.inputs.set_config_map(&name, found, &self.origins);
            }
            Notice::Kubelets(kubelets) => self.inputs.kubelets = Some(Ok(kubelets)),
            Notice::ProxyConfigs(configs) => self.inputs.proxy_configs = Some(Ok(configs)),
            Notice::NoProxyConfigs(absence) => self.go_without(absence),
            Notice::Failed(part, problem) => self.fail(part, &problem),
        }
    }

    /// What has been read before stays in use.
    fn fail(&mut self, part: Part, problem: &str) {
        if !self.known.contains(&part) {
            let problem = format!("cannot be watched: {problem}");
            match &part {
                Part::ConfigMap(name) => {
                    let inputs = &mut self.inputs;
                    inputs.set_unreadable(name, &problem, &self.origins);
                }
                Part::Nodes => {
                    let problem = format!("{part} {problem} (needed by --native-sidecar auto)");
                    self.inputs.kubelets = Some(Err(problem));
                }
                Part::ProxyConfigs => {
                    self.inputs.proxy_configs = Some(Err(format!("{part} {problem}")));
                }
            }
        }
        if let Entry::Vacant(first) = self.failed.entry(part) {
            warn!("{} cannot be watched, retrying: {problem}", first.key());
            first.insert(Failure::Error);
        }
    }

    /// Without the kind there are no objects. Without the right, those that were read before stay in use.
    fn go_without(&mut self, absence: Absence) {
        self.known.insert(Part::ProxyConfigs);
        let kept = match (absence, self.inputs.proxy_configs.take()) {
            (Absence::NoRight, Some(Ok(kept))) => kept,
            _ => Vec::new(),
        };
        let consequence = if kept.is_empty() {
            "pods are injected without ProxyConfigs"
        } else {
            "the ProxyConfigs that were read before stay in use"
        };
        self.inputs.proxy_configs = Some(Ok(kept));
        let failure = Failure::Absence(absence);
        if self.failed.insert(Part::ProxyConfigs, failure) != Some(failure) {
            warn!("{consequence}, retrying: {absence}");
        }
    }

    /// The inputs, if all are known and one has changed.
    fn complete(&mut self) -> Option<Inputs> {
        let texts = &self.inputs.texts;
        let is_complete = self.origins.iter().all(|origin| texts.contains_key(origin))
            && (!self.awaits_kubelets || self.inputs.kubelets.is_some())
            && (!self.awaits_proxy_configs || self.inputs.proxy_configs.is_some());
        if !is_complete || self.returned.as_ref() == Some(&self.inputs) {
            return None;
        }
        self.returned = Some(self.inputs.clone());
        self.returned.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = ["config", "values"];

    fn name() -> ConfigMapName {
        ConfigMapName {
            namespace: "istio-system".to_owned(),
            name: "injector".to_owned(),
        }
    }

    fn origin(key: &'static str) -> Origin {
        Origin::ConfigMap(name(), key)
    }

    fn state() -> State {
        State {
            origins: KEYS.map(origin).to_vec(),
            awaits_kubelets: true,
            ..State::default()
        }
    }

    fn found(keys: &[&str]) -> Notice {
        let data = keys.iter().map(|key| ((*key).to_owned(), String::new()));
        let map = ConfigMap {
            data: Some(data.collect()),
            ..ConfigMap::default()
        };
        Notice::ConfigMap(name(), Some(Box::new(map)))
    }

    fn failed(part: Part) -> Notice {
        Notice::Failed(part, "status 403".to_owned())
    }

    #[test]
    fn the_inputs_are_complete_when_all_parts_are_known() {
        let mut state = state();
        assert!(state.complete().is_none());
        state.apply(found(&KEYS));
        assert!(state.complete().is_none());
        state.apply(Notice::Kubelets(Kubelets::default()));
        assert!(state.complete().is_some());
        // Nothing has changed.
        state.apply(found(&KEYS));
        assert!(state.complete().is_none());
        state.apply(found(&["config"]));
        let inputs = state.complete().unwrap();
        assert_eq!(inputs.text(&origin("config")), Ok(""));
        let problem = inputs.text(&origin("values")).unwrap_err();
        assert!(problem.contains("no such key"), "{problem}");
    }

    #[test]
    fn a_failed_watch_is_a_problem_only_before_the_first_result() {
        let mut state = state();
        state.apply(failed(Part::Nodes));
        state.apply(failed(Part::ConfigMap(name())));
        let inputs = state.complete().unwrap();
        assert!(inputs.text(&origin("values")).unwrap_err().contains("403"));
        assert!(inputs.kubelets.unwrap().is_err());
        state.apply(found(&KEYS));
        state.apply(Notice::Kubelets(Kubelets::default()));
        assert!(state.complete().is_some());
        state.apply(failed(Part::Nodes));
        state.apply(failed(Part::ConfigMap(name())));
        assert!(state.complete().is_none());
    }

    fn proxy_configs(state: &mut State, notice: Notice) -> Option<Reading<Vec<Value>>> {
        state.apply(notice);
        state.complete()?.proxy_configs
    }

    #[test]
    fn proxy_configs_that_cannot_be_read_are_no_problem() {
        for absence in [Absence::NoKind, Absence::NoRight] {
            let mut state = State {
                awaits_proxy_configs: true,
                ..State::default()
            };
            assert!(state.complete().is_none());
            let found = proxy_configs(&mut state, Notice::NoProxyConfigs(absence));
            assert_eq!(found, Some(Ok(Vec::new())));
            // It is retried.
            for notice in [Notice::NoProxyConfigs(absence), failed(Part::ProxyConfigs)] {
                assert_eq!(proxy_configs(&mut state, notice), None);
            }
            let found = proxy_configs(&mut state, Notice::ProxyConfigs(vec![Value::Null]));
            assert_eq!(found, Some(Ok(vec![Value::Null])));
            let left = proxy_configs(&mut state, Notice::NoProxyConfigs(absence));
            let is_gone = absence == Absence::NoKind;
            assert_eq!(left, is_gone.then(|| Ok(Vec::new())), "{absence}");
        }
    }

    #[test]
    fn pods_wait_for_proxy_configs_that_may_exist() {
        let mut state = State {
            awaits_proxy_configs: true,
            ..State::default()
        };
        let problem = proxy_configs(&mut state, failed(Part::ProxyConfigs));
        assert!(problem.unwrap().is_err());
        let found = proxy_configs(&mut state, Notice::ProxyConfigs(Vec::new()));
        assert_eq!(found, Some(Ok(Vec::new())));
    }

    #[test]
    fn a_deleted_map_is_a_problem() {
        let mut state = state();
        state.awaits_kubelets = false;
        state.apply(Notice::ConfigMap(name(), None));
        let inputs = state.complete().unwrap();
        let problem = inputs.text(&origin("config")).unwrap_err();
        assert!(problem.contains("does not exist"), "{problem}");
    }
}
