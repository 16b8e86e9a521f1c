//! Requests that are not reviews, or too many of them.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use futures_util::stream;
use serde_json::{Value, json};

use super::{Cluster, pod};

const JSON: &str = "application/json";

#[tokio::test]
async fn what_is_not_a_review_gets_a_clear_status() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&["--max-body=65536"]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": {"kind": "Pod"}, "object": pod(&json!({}))},
    })
    .to_string();
    let large = "x".repeat(65_537);
    let cases = [
        (
            "/inject",
            "text/plain",
            &*review,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            "/inject",
            "application/json; charset=utf-8",
            &review,
            StatusCode::OK,
        ),
        ("/inject/cluster/one", JSON, &review, StatusCode::OK),
        ("/other", JSON, &review, StatusCode::NOT_FOUND),
        ("/inject", JSON, "", StatusCode::BAD_REQUEST),
        ("/inject", JSON, &large, StatusCode::PAYLOAD_TOO_LARGE),
        ("/inject", JSON, "{", StatusCode::OK),
    ];
    for (path, content_type, body, expected) in cases {
        let (status, response) = server
            .post(path, content_type, body.to_owned())
            .await
            .unwrap();
        assert_eq!(status, expected, "{path} {content_type}: {response:?}");
    }
    let (_, response) = server.post("/inject", JSON, "{").await.unwrap();
    let response: Value = serde_json::from_slice(&response).unwrap();
    assert_eq!(response["response"]["allowed"], false);
}

#[tokio::test]
async fn too_many_reviews_are_rejected_at_once() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&["--max-in-flight=1"]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    // A client that does not finish its body.
    let slow = Body::from_stream(stream::pending::<Result<&[u8], std::io::Error>>());
    let slow = server.post("/inject", JSON, slow);
    tokio::pin!(slow);
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut slow).await;
    assert!(waited.is_err(), "{waited:?}");
    let (status, _) = server.post("/inject", JSON, "{}").await.unwrap();
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    // Its turn ends by a timeout.
    let (status, _) = slow.await.unwrap();
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let (status, _) = server.post("/inject", JSON, "{}").await.unwrap();
    assert_eq!(status, StatusCode::OK);
}
