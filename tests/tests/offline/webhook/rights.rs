//! The rights that the manifests grant: those that the webhook uses, and no other.

use std::time::{Duration, Instant};

use interceptor_testkit::{apiserver::Recorded, manifests::render};
use serde_json::{Value, json};

use super::{Cluster, NAME, TIMEOUT, configuration::faulty_config};

/// What one request needs: group, resource, verb, and the object's name.
type Right = [String; 4];

/// The right that a request used.
fn used(request: &Recorded) -> Right {
    let mut path = request.path.trim_start_matches('/').split('/').skip(1);
    let is_core = request.path.starts_with("/api/");
    let group = if is_core { "" } else { path.next().unwrap() };
    let mut rest: Vec<_> = path.skip(1).collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    let selected = request.query.split('&').find_map(|parameter| {
        let selector = parameter.strip_prefix("fieldSelector=metadata.name")?;
        Some(selector.trim_start_matches("%3D").trim_start_matches('='))
    });
    let name = rest.get(1).copied().or(selected).unwrap_or_default();
    [group, rest[0], &request.verb, name].map(str::to_owned)
}

/// The rights that the webhook's roles in a directory below `deploy` grant; the name is empty for all
/// objects.
fn granted(directory: &str) -> Vec<Right> {
    let objects = render(directory).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let roles = objects.iter().filter(|object| {
        ["ClusterRole", "Role"].contains(&&*text(&object["kind"]))
            && text(&object["metadata"]["name"]).starts_with(NAME)
    });
    let entries = roles.flat_map(|role| role["rules"].as_array().unwrap());
    let mut rights = Vec::new();
    for rule in entries {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    let names = texts(&rule["resourceNames"]);
                    let names = if names.is_empty() { vec![""] } else { names };
                    let of = |name| [group, resource, verb, name].map(str::to_owned);
                    rights.extend(names.into_iter().map(of));
                }
            }
        }
    }
    rights
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// The granted rights that no request has used.
fn unused(cluster: &Cluster, granted: &[Right]) -> Vec<Right> {
    let requests = cluster.api.recorded();
    let successful = requests.iter().filter(|request| request.status < 400);
    let used: Vec<_> = successful.map(used).collect();
    let is_used = |right: &Right| {
        let mut used = used.iter();
        used.any(|one| one[..3] == right[..3] && (right[3].is_empty() || one[3] == right[3]))
    };
    let unused = granted.iter().filter(|right| !is_used(right));
    unused.cloned().collect()
}

#[tokio::test]
async fn every_right_is_used_and_sufficient() {
    use_all_rights(&Cluster::new(), "webhook", &[]).await;
}

#[tokio::test]
async fn every_right_with_istios_configuration_is_used_too() {
    let cluster = Cluster::with_istio();
    use_all_rights(&cluster, "examples/injection-istio", &["--from-cluster"]).await;
}

async fn use_all_rights(cluster: &Cluster, directory: &str, arguments: &[&str]) {
    let granted = granted(directory);
    // Another one has a certificate that has to be replaced.
    let other = cluster.start(&[arguments, &["--service=old-name"]].concat());
    let start = Instant::now();
    while cluster.secret().is_none() {
        assert!(start.elapsed() < TIMEOUT, "no Secret");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(other);
    // It cannot be read: the Event about it needs a right too.
    let mut secret = cluster.secret().unwrap();
    secret["data"]["tls.crt"] = json!("eA==");
    cluster.api.put(secret).unwrap();
    let _replica = cluster.serve(arguments).await;
    // Servers before 1.32 need a list before each watch.
    cluster.api.refuse_streaming_lists();
    let _second = cluster.serve(arguments).await;
    // The replicas publish an Event about it.
    cluster.put_config(&faulty_config());
    loop {
        let unused = unused(cluster, &granted);
        if unused.is_empty() {
            break;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "granted and not used: {unused:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = cluster.api.refused();
    assert!(refused.is_empty(), "used and not granted: {refused:?}");
}
