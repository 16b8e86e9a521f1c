//! Requests that are not reviews, or too many of them.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use futures_util::stream;
use interceptor_testkit::https::Protocol;
use serde_json::{Value, json};

use super::{Cluster, review};

const JSON: &str = "application/json";

#[tokio::test]
async fn what_is_not_a_review_gets_a_clear_status() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&["--max-body=65536"]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let review = review();
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

/// `review` with another field, so that it has this size.
fn padded(size: usize) -> String {
    let mut review: Value = serde_json::from_str(&review()).unwrap();
    review["request"]["userInfo"] = json!({"username": ""});
    let padding = "x".repeat(size - review.to_string().len());
    review["request"]["userInfo"]["username"] = json!(padding);
    review.to_string()
}

#[tokio::test]
async fn six_mebibytes_are_accepted_and_not_one_byte_more() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (size, expected) in [
            (6 << 20, StatusCode::OK),
            ((6 << 20) + 1, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let server = replica.server(&bundle);
            let mut connection = server.open(protocol).await.unwrap();
            let (status, body) = connection
                .post("/inject", JSON, padded(size))
                .await
                .unwrap();
            assert_eq!(status, expected, "{protocol:?} {size}: {body:?}");
            let is_injected = String::from_utf8_lossy(&body).contains("\"patch\"");
            assert_eq!(is_injected, expected == StatusCode::OK, "{body:?}");
        }
    }
}

/// Bodies that are almost reviews.
fn malformed() -> Vec<Vec<u8>> {
    let review = review();
    let mut bodies: Vec<Vec<u8>> = (1..review.len())
        .step_by(13)
        .map(|end| review.as_bytes()[..end].to_vec())
        .collect();
    for text in [
        "null",
        "[]",
        "\"\"",
        "0",
        "1e999",
        "{}",
        " ",
        "\0",
        "{\"kind\": \"AdmissionReview\"}",
    ] {
        bodies.push(text.as_bytes().to_vec());
    }
    for open in [
        "[",
        "{\"a\":",
        "{\"kind\":\"AdmissionReview\",\"request\":[",
    ] {
        bodies.push(open.repeat(100_000).into_bytes());
    }
    bodies.push(b"{\"kind\": \"\xff\xfe\"}".to_vec());
    let junk = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({"x": {}}),
    ];
    let places = [
        "/kind",
        "/apiVersion",
        "/request",
        "/request/object",
        "/request/object/spec",
        "/request/object/metadata",
        "/request/object/spec/containers",
        "/request/object/spec/containers/0",
    ];
    for (place, junk) in places
        .iter()
        .flat_map(|place| junk.iter().map(move |junk| (place, junk)))
    {
        let mut changed: Value = serde_json::from_str(&review).unwrap();
        *changed.pointer_mut(place).unwrap() = junk.clone();
        bodies.push(changed.to_string().into_bytes());
    }
    bodies
}

#[tokio::test]
async fn a_malformed_review_is_refused_and_nothing_else() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let mut connection = replica.server(&bundle).open(Protocol::Http2).await.unwrap();
    for body in malformed() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let (status, response) = connection.post("/inject", JSON, body).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{shown}");
        let response: Value = serde_json::from_slice(&response).unwrap();
        assert_eq!(response["kind"], "AdmissionReview", "{shown}");
        let response = &response["response"];
        // A pod without metadata, or with null in it, is a pod.
        if response["allowed"] == false {
            let message = response["status"]["message"].as_str().unwrap();
            assert!(message.starts_with("interceptor: "), "{shown}: {message}");
        } else {
            assert!(response["patch"].is_string(), "{shown}: {response}");
        }
    }
    let metrics = replica.get("/metrics").await;
    assert!(
        metrics.contains("interceptor_injection_panics_total 0"),
        "{metrics}"
    );
}

/// A client that opens requests and does not send their bodies gets no more than its share.
#[tokio::test]
async fn overload_is_answered_at_once() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&["--max-in-flight=3"]).await;
    let bundle = cluster.bundle();
    let server = replica.server(&bundle);
    let slow = server.open(Protocol::Http2).await.unwrap();
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let mut connection = slow.share().unwrap();
            let body = Body::from_stream(stream::pending::<Result<&[u8], std::io::Error>>());
            tokio::spawn(async move { connection.post("/inject", JSON, body).await })
        })
        .collect();
    replica
        .until("/metrics", "interceptor_injection_overloads_total 37")
        .await;
    for _ in 0..10 {
        let (status, _) = server.post("/inject", JSON, review()).await.unwrap();
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    }
    for response in slow {
        let (status, _) = response.await.unwrap().unwrap();
        let expected = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
        assert!(expected.contains(&status), "{status}");
    }
    let (status, _) = server.post("/inject", JSON, review()).await.unwrap();
    assert_eq!(status, StatusCode::OK);
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
