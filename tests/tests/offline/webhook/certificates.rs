//! The certificate: its CA, its renewal and its replicas.

use std::{fs, time::Duration};

use interceptor_testkit::https::Protocol;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Cluster, NAMESPACE, has_sidecar, pod};

/// Creates pods until `stop`, and returns how many. None may fail.
async fn create_until(cluster: &Cluster, stop: impl Fn() -> bool) -> usize {
    let mut created = 0;
    while !stop() {
        let pod = cluster.api.create_pod("mesh", &pod(&json!({}))).await;
        assert!(has_sidecar(&pod.expect("a pod")));
        created += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(created < 10_000, "no change in time");
    }
    created
}

#[tokio::test]
async fn replicas_share_one_ca() {
    let cluster = Cluster::new();
    let [one, other] = [cluster.start(&[]), cluster.start(&[])];
    one.until_ready().await;
    other.until_ready().await;
    cluster.route(&[&one, &other]);
    let bundle = cluster.bundle();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
    for replica in [&one, &other] {
        replica
            .server(&bundle)
            .connect(Protocol::Http2)
            .await
            .unwrap();
    }
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_replaced_without_a_failed_call() {
    let cluster = Cluster::new();
    let other = cluster.start(&["--service=old-name"]);
    let renamed = || cluster.secret().is_some();
    while !renamed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(other);
    let before = cluster.secret().unwrap();
    let _replica = cluster.serve(&[]).await;
    let after = || cluster.secret().unwrap()["data"].clone();
    assert_eq!(before["data"]["ca.crt"], after()["ca.crt"]);
    assert_ne!(before["data"]["tls.crt"], after()["tls.crt"]);
    // The second check keeps what the first has issued.
    let issued = after()["tls.crt"].clone();
    let start = std::time::Instant::now();
    let created = create_until(&cluster, || start.elapsed() > Duration::from_secs(1)).await;
    assert!(created > 0, "{created}");
    assert_eq!(after()["tls.crt"], issued);
}

#[tokio::test]
async fn ca_bundle_is_set_again_when_it_is_overwritten() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let get = || {
        let kind = "MutatingWebhookConfiguration";
        let group = "admissionregistration.k8s.io/v1";
        cluster
            .api
            .get(group, kind, "", super::CONFIGURATION)
            .unwrap()
    };
    let mut overwritten = get();
    for webhook in overwritten["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = Value::Null;
    }
    cluster.api.put(overwritten).unwrap();
    let start = std::time::Instant::now();
    while cluster.bundle() != bundle {
        assert!(start.elapsed() < super::TIMEOUT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The selectors and rules are another owner's.
    assert!(get()["webhooks"][0]["rules"].is_array());
    replica.until_ready().await;
}

#[tokio::test]
async fn a_replica_that_terminates_loses_no_request() {
    let cluster = Cluster::new();
    let [leaving, staying] = [cluster.start(&["--drain-seconds=2"]), cluster.start(&[])];
    leaving.until_ready().await;
    staying.until_ready().await;
    cluster.route(&[&leaving, &staying]);
    leaving.signal(Signal::SIGTERM);
    leaving.until("/readyz", "terminating").await;
    // What the endpoints controller does when a pod is not ready.
    let start = std::time::Instant::now();
    let routed = std::cell::Cell::new(false);
    create_until(&cluster, || {
        if start.elapsed() > Duration::from_millis(500) && !routed.replace(true) {
            cluster.route(&[&staying]);
        }
        start.elapsed() > Duration::from_secs(3)
    })
    .await;
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let cluster = Cluster::new();
    let group = "admissionregistration.k8s.io/v1";
    let kind = "MutatingWebhookConfiguration";
    cluster
        .api
        .remove(group, kind, "", super::CONFIGURATION)
        .unwrap();
    let replica = cluster.start(&[]);
    replica
        .until("/readyz", "cannot get the MutatingWebhookConfiguration")
        .await;
}

#[tokio::test]
async fn a_certificate_in_a_directory_is_read_again() {
    let cluster = Cluster::new();
    drop(cluster.serve(&[]).await);
    let secret = cluster.secret().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |secret: &Value| {
        for name in ["tls.crt", "tls.key"] {
            let text = secret["data"][name].as_str().unwrap();
            let text = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text);
            fs::write(directory.path().join(name), text.unwrap()).unwrap();
        }
    };
    write(&secret);
    let bundle = cluster.bundle();
    let option = format!("--tls-dir={}", directory.path().display());
    let replica = cluster.serve(&[&option]).await;
    replica
        .server(&bundle)
        .connect(Protocol::Http2)
        .await
        .unwrap();

    // Another CA.
    cluster
        .api
        .remove("v1", "Secret", NAMESPACE, "interceptor-webhook-tls")
        .unwrap();
    drop(cluster.serve(&[]).await);
    write(&cluster.secret().unwrap());
    let renewed = cluster.bundle();
    assert_ne!(renewed, bundle);
    let start = std::time::Instant::now();
    while replica
        .server(&renewed)
        .connect(Protocol::Http2)
        .await
        .is_err()
    {
        assert!(start.elapsed() < super::TIMEOUT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_overwritten_certificate_is_replaced_and_never_served() {
    let cluster = Cluster::new();
    let _replica = cluster.serve(&[]).await;
    let mut secret = cluster.secret().unwrap();
    for (from, to) in [("ca.crt", "tls.crt"), ("ca.key", "tls.key")] {
        secret["data"][to] = secret["data"][from].clone();
    }
    let overwritten = secret["data"]["tls.crt"].clone();
    cluster.api.put(secret).unwrap();
    let start = std::time::Instant::now();
    let mut replaced_at = None;
    // The last calls are after the replacement.
    while replaced_at.is_none_or(|at: std::time::Instant| at.elapsed() < Duration::from_secs(1)) {
        let pod = cluster.api.create_pod("mesh", &pod(&json!({}))).await;
        assert!(has_sidecar(&pod.expect("a pod")));
        if cluster.secret().unwrap()["data"]["tls.crt"] != overwritten {
            replaced_at.get_or_insert_with(std::time::Instant::now);
        }
        assert!(start.elapsed() < super::TIMEOUT, "not replaced in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_unreadable_certificate_is_replaced_and_reported() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let bundle = cluster.bundle();
    let mut secret = cluster.secret().unwrap();
    let unreadable = json!("eA==");
    secret["data"]["tls.crt"] = unreadable.clone();
    cluster.api.put(secret).unwrap();
    // No call fails meanwhile, and the CA stays.
    create_until(&cluster, || {
        cluster.secret().unwrap()["data"]["tls.crt"] != unreadable
    })
    .await;
    assert_eq!(cluster.bundle(), bundle);
    let warning = "the server's certificate was replaced: the PEM file has no certificate";
    let start = std::time::Instant::now();
    let event = loop {
        if let Some(event) = cluster.api.events_about("interceptor-webhook-tls").pop() {
            break event;
        }
        assert!(start.elapsed() < super::TIMEOUT, "{}", replica.0.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(event["note"], warning);
    assert_eq!(event["reason"], "UnusableCertificate");
    assert_eq!(
        event["regarding"]["uid"],
        cluster.secret().unwrap()["metadata"]["uid"]
    );
    assert!(replica.0.log().contains(warning), "{}", replica.0.log());
}
