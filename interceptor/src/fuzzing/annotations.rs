//! The properties of pod annotations.

use std::collections::BTreeMap;

use crate::{
    agent::policy::{
        annotations::{of_annotations, with_strict_mode},
        check_annotation,
        pod::{Container, Pod, PodName, PodUid},
    },
    settings::{Settings, Strict},
};

/// Annotations that may be invalid for the agent only: the mode also comes from the template, and strict
/// mode is not for pods that reroute interfaces.
const FOR_AGENT: [&str; 2] = [
    "sidecar.istio.io/interceptionMode",
    "interceptor.dev/strict",
];

/// Annotations, `NAME=VALUE` on each line: what the webhook refuses is what the agent cannot capture, an
/// error names an annotation, and the settings survive a round trip through a record.
pub fn annotations(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let pod = pod(text);
    let plan = of_annotations(&pod, &pod.containers[0])
        .and_then(|plan| with_strict_mode(plan, &pod, Strict::Off));
    let refused = pod
        .annotations
        .iter()
        .any(|(name, value)| check_annotation(name, value).is_err());
    match plan {
        Ok(plan) => {
            assert!(!refused, "the webhook refuses {pod:?}");
            let text = serde_json::to_vec(&plan.settings).expect("settings as JSON");
            let again: Settings = serde_json::from_slice(&text).expect("settings");
            assert_eq!(again, plan.settings);
        }
        Err(problem) => {
            let name = problem.split(' ').nth(1);
            let is_known = problem.starts_with("annotation ") && !problem.contains('\n');
            assert!(is_known, "{problem}");
            let is_for_agent_only = name.is_some_and(|name| FOR_AGENT.contains(&name));
            assert!(
                refused || is_for_agent_only,
                "the webhook accepts {pod:?}: {problem}"
            );
        }
    }
}

fn pod(text: &str) -> Pod {
    let annotations: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
        },
        uid: PodUid("u".to_owned()),
        labels: BTreeMap::new(),
        annotations,
        host_network: false,
        runtime_class: None,
        init_containers: Vec::new(),
        containers: vec![Container::default()],
        is_finished: false,
        has_started: false,
        started_init_containers: Vec::new(),
        init_container_ids: BTreeMap::new(),
    }
}
