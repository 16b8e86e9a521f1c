use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Review, ReviewResult, review};
use crate::{
    Injected, Outcome,
    decision::Reason,
    refusal::{Problem, Refusal},
};

fn request() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": {"metadata": {"name": "a"}, "spec": {"containers": [], "newField": 1}},
        },
    })
}

fn injected(pod: &Value) -> Outcome {
    let mut pod = pod.clone();
    pod["spec"]["containers"] = json!([{"name": "istio-proxy"}]);
    Outcome::Inject(Injected {
        replaced: None,
        pod,
        reason: Reason::PolicyEnabled,
        warnings: vec!["look".to_owned()],
    })
}

fn run(request: &Value) -> Review {
    review(request.to_string().as_bytes(), "/inject", &[], |pod, _| {
        Ok(injected(pod))
    })
}

fn message(review: &Review) -> &str {
    let response = &review.response["response"];
    assert_eq!(response["allowed"], false, "{review:?}");
    response["status"]["message"].as_str().unwrap()
}

#[test]
fn the_patch_makes_the_injected_pod() {
    for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
        let mut request = request();
        request["apiVersion"] = json!(version);
        let audit = [("config", "7".to_owned())];
        let body = request.to_string();
        let review = review(body.as_bytes(), "/inject", &audit, |pod, subject| {
            assert_eq!(subject.namespace, "shop");
            Ok(injected(pod))
        });
        assert_eq!(review.result, ReviewResult::Injected(Reason::PolicyEnabled));
        assert_eq!(review.response["apiVersion"], version);
        let response = &review.response["response"];
        assert_eq!(response["uid"], "u-1");
        assert_eq!(response["allowed"], true);
        assert_eq!(response["patchType"], "JSONPatch");
        assert_eq!(response["warnings"], json!(["look"]));
        let expected = json!({
            "decision": "injected",
            "reason": Reason::PolicyEnabled.label(),
            "config": "7",
        });
        assert_eq!(response["auditAnnotations"], expected);
        let patch = STANDARD
            .decode(response["patch"].as_str().unwrap())
            .unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut pod = request["request"]["object"].clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod["spec"]["containers"][0]["name"], "istio-proxy");
        assert_eq!(pod["spec"]["newField"], 1);
    }
}

#[test]
fn a_skipped_pod_is_allowed_with_the_reason() {
    let body = request().to_string();
    let review = review(body.as_bytes(), "/inject", &[], |_, _| {
        Ok(Outcome::Skip(Reason::HostNetwork))
    });
    assert_eq!(review.result, ReviewResult::Skipped(Reason::HostNetwork));
    let response = &review.response["response"];
    assert_eq!(response["allowed"], true);
    assert!(response.get("patch").is_none());
    assert_eq!(response["auditAnnotations"]["decision"], "skipped");
}

#[test]
fn a_refused_pod_is_not_allowed_and_names_its_annotation() {
    let body = request().to_string();
    let review = review(body.as_bytes(), "/inject", &[], |_, _| {
        Err(Refusal(vec![Problem::Annotation {
            name: "a.io/b".to_owned(),
            value: "x".to_owned(),
            problem: "give y".to_owned(),
        }]))
    });
    assert_eq!(review.result, ReviewResult::Refused);
    let message = message(&review);
    assert!(
        message.contains("annotation a.io/b \"x\": give y"),
        "{message}"
    );
    assert_eq!(review.response["response"]["status"]["code"], 400);
}

#[test]
fn other_requests_are_allowed_unchanged() {
    let cases = [
        ("/request/operation", json!("UPDATE")),
        ("/request/kind/kind", json!("Deployment")),
        ("/request/subResource", json!("ephemeralcontainers")),
    ];
    for (pointer, value) in cases {
        let mut request = request();
        request["request"]["subResource"] = Value::Null;
        *request.pointer_mut(pointer).unwrap() = value;
        let review = run(&request);
        assert_eq!(review.result, ReviewResult::NotApplicable, "{pointer}");
        let response = &review.response["response"];
        assert_eq!(response["allowed"], true);
        assert!(response.get("patch").is_none());
    }
}

#[test]
fn an_empty_operation_is_a_creation() {
    let mut request = request();
    request["request"]["operation"] = json!("");
    assert!(matches!(run(&request).result, ReviewResult::Injected(_)));
}

#[test]
fn what_is_no_review_is_refused() {
    let mut no_request = request();
    no_request["request"] = Value::Null;
    let mut other_version = request();
    other_version["apiVersion"] = json!("admission.k8s.io/v9");
    let mut no_spec = request();
    no_spec["request"]["object"] = json!([]);
    let mut no_kind = request();
    no_kind["request"] = json!({"uid": "u-1", "operation": "CREATE"});
    let cases = [
        (String::new(), "JSON"),
        ("{".to_owned(), "JSON"),
        ("[1]".to_owned(), "kind"),
        ("{}".to_owned(), "kind"),
        (no_request.to_string(), "no request"),
        (other_version.to_string(), "apiVersion"),
        (no_spec.to_string(), "spec"),
        (no_kind.to_string(), "names no kind"),
    ];
    for (body, expected) in cases {
        let review = review(body.as_bytes(), "/inject", &[], |pod, _| Ok(injected(pod)));
        assert_eq!(review.result, ReviewResult::Invalid, "{body}");
        let message = message(&review);
        assert!(message.contains(expected), "{body}: {message}");
    }
    assert_eq!(run(&other_version).response["response"]["uid"], "u-1");
}
