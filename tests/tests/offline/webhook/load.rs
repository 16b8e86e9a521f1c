//! Pods that are created all the time, while certificates and replicas change.

mod authority;

use std::{cell::Cell, fs, os::unix::fs::symlink, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use interceptor_testkit::https::Protocol;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::authority::{Authority, KeyedCertificate};
use super::{CONFIGURATION, Cluster, NAMESPACE, Replica, TIMEOUT, has_sidecar, pod};

const CLIENTS: usize = 4;
const SECRET: &str = "interceptor-webhook-tls";

/// What became known about the pods of a load. None is without a sidecar.
#[derive(Debug, Default)]
struct Pods {
    injected: usize,
    refused: Vec<String>,
}

impl Pods {
    async fn create(&mut self, cluster: &Cluster) {
        match cluster.api.create_pod("mesh", &pod(&json!({}))).await {
            Ok(created) => {
                assert!(has_sidecar(&created), "a pod passed the webhook: {created}");
                self.injected += 1;
            }
            Err(refusal) => self.refused.push(refusal),
        }
    }

    /// Of a load in which no call may fail.
    #[track_caller]
    fn assert_all_injected(&self) {
        assert!(self.refused.is_empty(), "{:?}", self.refused);
        assert!(self.injected > CLIENTS, "{}", self.injected);
    }
}

/// Creates pods until `change` is complete.
async fn during<T>(cluster: &Cluster, change: impl Future<Output = T>) -> (Pods, T) {
    let is_done = Cell::new(false);
    let client = || async {
        let mut pods = Pods::default();
        while !is_done.get() {
            pods.create(cluster).await;
            sleep(Duration::from_millis(5)).await;
        }
        pods
    };
    let change = async {
        let result = change.await;
        is_done.set(true);
        result
    };
    let clients = (0..CLIENTS).map(|_| client());
    let (pods, result) = tokio::join!(join_all(clients), change);
    let mut all = Pods::default();
    for pods in pods {
        all.injected += pods.injected;
        all.refused.extend(pods.refused);
    }
    (all, result)
}

async fn until(condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < TIMEOUT, "not in time");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The certificate that a replica presents, if it is signed by a CA that is published.
async fn presented(cluster: &Cluster, replica: &Replica) -> Option<Vec<u8>> {
    let bundle = cluster.bundle();
    let stream = replica
        .server(&bundle)
        .connect(Protocol::Http2)
        .await
        .ok()?;
    let (_, connection) = stream.get_ref();
    Some(connection.peer_certificates()?.first()?.to_vec())
}

fn put_secret(cluster: &Cluster, authority: &Authority, server: &KeyedCertificate) {
    let data = [
        ("ca.crt", &authority.certificate),
        ("ca.key", &authority.key),
        ("tls.crt", &server.certificate),
        ("tls.key", &server.key),
    ];
    let data: Value = data
        .iter()
        .map(|(name, text)| ((*name).to_owned(), json!(STANDARD.encode(text))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let metadata = json!({"name": SECRET, "namespace": NAMESPACE});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
    cluster.api.put(secret).unwrap();
}

/// The new CA is trusted before it signs, and the old one for as long as its certificates are in use.
#[tokio::test]
async fn a_ca_that_is_due_is_replaced_without_a_failed_call() {
    let cluster = Cluster::new();
    let authority = Authority::of_eight_years_ago();
    put_secret(&cluster, &authority, &authority.issue());
    let replicas = [cluster.serve(&[]).await, cluster.start(&[])];
    replicas[1].until_ready().await;
    cluster.route(&[&replicas[0], &replicas[1]]);
    let old = presented(&cluster, &replicas[0]).await.unwrap();
    let is_replaced = async |replica: &Replica| {
        let now = presented(&cluster, replica).await;
        now.expect("a certificate of a published CA") != old
    };
    let change = until(async || is_replaced(&replicas[0]).await && is_replaced(&replicas[1]).await);
    let (pods, ()) = during(&cluster, change).await;
    pods.assert_all_injected();
    let bundle = cluster.bundle();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(bundle.contains(authority.certificate.trim()));
}

/// As the kubelet replaces the files of a mounted Secret: by another link, at once.
#[tokio::test]
async fn files_are_replaced_without_a_failed_call() {
    let cluster = Cluster::new();
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "one", &authority.issue());
    publish(&cluster, &authority);
    let option = format!("--tls-dir={}/data", directory.path().display());
    let replica = cluster.serve(&[&option]).await;
    let old = presented(&cluster, &replica).await.unwrap();
    let change = async {
        mount(directory.path(), "two", &authority.issue());
        let is_replaced = async || presented(&cluster, &replica).await.unwrap() != old;
        until(is_replaced).await;
    };
    let (pods, ()) = during(&cluster, change).await;
    pods.assert_all_injected();
}

fn mount(directory: &Path, version: &str, certificate: &KeyedCertificate) {
    let files = directory.join(version);
    fs::create_dir(&files).unwrap();
    fs::write(files.join("tls.crt"), &certificate.certificate).unwrap();
    fs::write(files.join("tls.key"), &certificate.key).unwrap();
    let link = directory.join("new");
    symlink(files, &link).unwrap();
    fs::rename(link, directory.join("data")).unwrap();
}

/// Sets `caBundle`, as cert-manager does.
fn publish(cluster: &Cluster, authority: &Authority) {
    let group = "admissionregistration.k8s.io/v1";
    let found = cluster
        .api
        .get(group, "MutatingWebhookConfiguration", "", CONFIGURATION);
    let mut configuration = found.unwrap();
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = json!(STANDARD.encode(&authority.certificate));
    }
    cluster.api.put(configuration).unwrap();
}

/// Until the endpoint is removed, its calls fail, and their pods are refused.
#[tokio::test]
async fn a_killed_replica_lets_no_pod_pass() {
    let cluster = Cluster::new();
    let [killed, staying] = [cluster.start(&[]), cluster.start(&[])];
    killed.until_ready().await;
    staying.until_ready().await;
    cluster.route(&[&killed, &staying]);
    let change = async {
        sleep(Duration::from_millis(300)).await;
        killed.signal(Signal::SIGKILL);
        sleep(Duration::from_millis(500)).await;
        cluster.route(&[&staying]);
    };
    let (pods, ()) = during(&cluster, change).await;
    assert!(pods.injected > CLIENTS, "{pods:?}");
    for refusal in &pods.refused {
        assert!(refusal.contains("failed calling webhook"), "{refusal}");
    }
    let (pods, ()) = during(&cluster, sleep(Duration::from_millis(500))).await;
    pods.assert_all_injected();
}

#[tokio::test]
async fn a_replica_that_terminates_loses_no_request() {
    let cluster = Cluster::new();
    let [leaving, staying] = [cluster.start(&["--drain-seconds=2"]), cluster.start(&[])];
    leaving.until_ready().await;
    staying.until_ready().await;
    cluster.route(&[&leaving, &staying]);
    let change = async {
        leaving.signal(Signal::SIGTERM);
        leaving.until("/readyz", "terminating").await;
        sleep(Duration::from_millis(500)).await;
        // What the endpoints controller does when a pod is not ready.
        cluster.route(&[&staying]);
        sleep(Duration::from_millis(2500)).await;
    };
    let (pods, ()) = during(&cluster, change).await;
    pods.assert_all_injected();
}
