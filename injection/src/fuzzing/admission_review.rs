//! The properties of reviews.

use std::sync::{Arc, LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use json_patch::Patch;
use serde_json::{Value, json};

use crate::{
    Config, Outcome, Sidecar, Subject, builtin,
    decision::Rules,
    inject, istio, record,
    refusal::Refusal,
    review::review,
    status,
    uninject::{Uninjected, uninject},
};

/// Both sidecars.
static CONFIGS: LazyLock<[Config; 2]> = LazyLock::new(|| {
    let builtin = Box::new(builtin::Config {
        // The built-in configuration is large.
        bootstrap: Some(json!({"admin": {}})),
        ..builtin::Config::default()
    });
    let config = |sidecar| Config {
        rules: Rules::default(),
        sidecar,
    };
    [
        config(Sidecar::Builtin(builtin, |_, _| Ok(()))),
        config(Sidecar::Istio(Arc::new(istio_config()))),
    ]
});

fn istio_config() -> istio::Config {
    let sources = istio::Sources {
        inject: include_str!("template.yaml"),
        values: r#"{"global": {"hub": "h", "tag": "t", "proxy": {"image": "proxyv2"}},
            "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true}}"#,
        mesh: "",
    };
    istio::Config::load(&sources, istio::Options::default()).expect("a configuration")
}

/// A request of the API server: the patch makes the injected pod, a second injection changes nothing, and
/// its removal gives the original.
pub fn admission_review(body: &[u8]) {
    for config in &*CONFIGS {
        let mut outcome = None;
        let reviewed = review(body, "/inject/cluster/one", &[], |pod, subject| {
            let result = inject(pod, subject, config);
            outcome = Some((pod.clone(), subject.clone(), result.clone()));
            result
        });
        let response = &reviewed.response["response"];
        assert!(response["allowed"].is_boolean(), "{response}");
        assert!(response["uid"].is_string(), "{response}");
        if let Some((pod, subject, Ok(Outcome::Inject(injected)))) = outcome {
            assert_eq!(patched(&pod, &response["patch"]), injected.pod);
            check(&pod, &injected.pod, &subject, config);
        }
    }
}

fn patched(pod: &Value, patch: &Value) -> Value {
    let patch = patch.as_str().expect("a patch");
    let patch = STANDARD.decode(patch).expect("Base64");
    let patch: Patch = serde_json::from_slice(&patch).expect("a patch");
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).expect("a patch for the pod");
    patched
}

fn check(pod: &Value, injected: &Value, subject: &Subject, config: &Config) {
    match inject(injected, subject, config) {
        Ok(Outcome::Inject(again)) => assert_eq!(&again.pod, injected),
        other => panic!("a second injection: {other:?}"),
    }
    let annotations = &pod["metadata"]["annotations"];
    if annotations[record::UNDO].is_null() && annotations[status::STATUS].is_null() {
        let removed: Result<Uninjected, Refusal> = uninject(injected);
        assert_eq!(removed, Ok(Uninjected::Exact(pod.clone())));
    }
}
