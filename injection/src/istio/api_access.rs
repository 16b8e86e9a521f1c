//! The volume with the service account's token. The API server adds it to each pod, with a random
//! name, before webhooks are called; it is all that differs between two pods of a `ReplicaSet`.

use serde_json::{Value, json};

use super::containers::{self, CONTAINERS, INIT_CONTAINERS};

/// What the names start with.
const PREFIX: &str = "kube-api-access-";
/// The length of what follows, and its characters (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_LENGTH: usize = 5;
const SUFFIX_CHARACTERS: &str = "bcdfghjklmnpqrstvwxz2456789";

/// The name that stands for all random ones, of which it is none.
pub(super) const CANONICAL: &str = "kube-api-access-00000";

/// `pod` with [`CANONICAL`] as the name of the volume, if it has such a volume.
pub(super) fn canonical(pod: &Value) -> Option<Value> {
    let name = volume(pod)?;
    let mut canonical = pod.clone();
    rename(canonical["spec"].get_mut("volumes"), name);
    for list in [CONTAINERS, INIT_CONTAINERS] {
        for container in containers::of_mut(&mut canonical, list) {
            rename(container.get_mut("volumeMounts"), name);
        }
    }
    Some(canonical)
}

fn volume(pod: &Value) -> Option<&str> {
    let mut volumes = pod["spec"]["volumes"].as_array()?.iter();
    volumes.find_map(|volume| {
        let is_projected = volume["projected"].is_object();
        let name = volume["name"].as_str().filter(|name| is_random(name));
        name.filter(|_| is_projected)
    })
}

fn is_random(name: &str) -> bool {
    let suffix = name.strip_prefix(PREFIX);
    suffix.is_some_and(|suffix| {
        suffix.len() == SUFFIX_LENGTH
            && suffix
                .chars()
                .all(|character| SUFFIX_CHARACTERS.contains(character))
    })
}

/// Renames the entries of `list` that have this name.
fn rename(list: Option<&mut Value>, name: &str) {
    let entries = list.and_then(Value::as_array_mut).into_iter().flatten();
    for entry in entries.filter(|entry| entry["name"] == name) {
        entry["name"] = json!(CANONICAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(volume: &str) -> Value {
        json!({"spec": {
            "containers": [{"name": "app", "volumeMounts": [
                {"name": volume, "mountPath": "/var/run/secrets"},
                {"name": "own", "mountPath": "/own"},
            ]}, {"name": volume}],
            "initContainers": [{"name": "init", "volumeMounts": [{"name": volume}]}],
            "volumes": [{"name": "own"}, {"name": volume, "projected": {"sources": []}}],
        }})
    }

    #[test]
    fn pods_that_differ_in_a_random_name_are_equal() {
        let [one, other] = ["kube-api-access-x7kqz", "kube-api-access-2bcdf"].map(pod);
        let canonical = canonical(&one).unwrap();
        assert_eq!(
            super::canonical(&other).unwrap()["spec"]["volumes"],
            canonical["spec"]["volumes"]
        );
        let mounts = |pod: &Value| {
            pod.pointer("/spec/containers/0/volumeMounts")
                .unwrap()
                .clone()
        };
        assert_eq!(mounts(&canonical), mounts(&pod(CANONICAL)));
        // Only volumes and mounts are renamed.
        assert_eq!(
            canonical["spec"]["containers"][1],
            one["spec"]["containers"][1]
        );
        assert_eq!(super::canonical(&canonical), None);
    }

    #[test]
    fn a_name_that_is_not_random_is_kept() {
        for name in [
            "kube-api-access-mine",
            "kube-api-access-aeiou",
            "token",
            "kube-api-access-x7kqzz",
        ] {
            assert_eq!(canonical(&pod(name)), None, "{name}");
        }
        let mut not_projected = pod("kube-api-access-x7kqz");
        not_projected["spec"]["volumes"][1] = json!({"name": "kube-api-access-x7kqz"});
        assert_eq!(canonical(&not_projected), None);
        assert_eq!(canonical(&json!({})), None);
    }
}
