//! Users and groups that `OpenShift` assigns to namespaces.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CONTAINERS, INIT, INIT_CONTAINERS, PROXY, VALIDATION, containers};
use crate::Subject;

/// Istio's own user and group.
const DEFAULT: u32 = 1337;

const USERS: &str = "openshift.io/sa.scc.uid-range";
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// The user and the group of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Ids {
    /// The last ones that the namespace may use on `OpenShift`, else Istio's own.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        let users = annotations.get(USERS);
        let groups = annotations.get(GROUPS).or(users);
        let first_group = groups.and_then(|groups| groups.split(',').next());
        let user = users.and_then(|users| last_of_block(users));
        let group = first_group.and_then(last_of_block);
        Self {
            user: user.unwrap_or(DEFAULT),
            group: group.unwrap_or(DEFAULT),
        }
    }
}

/// The last number of a block `start/size` or `start-end`.
fn last_of_block(block: &str) -> Option<u32> {
    if let Some((start, size)) = block.split_once('/') {
        let start: u32 = start.parse().ok()?;
        return start.checked_add(size.parse().ok()?)?.checked_sub(1);
    }
    let (start, end) = block.split_once('-')?;
    start.parse::<u32>().ok()?;
    end.parse().ok()
}

/// Removes the user of the pod's own istio-proxy if it is the application's: `OpenShift` assigned both,
/// and a proxy with the application's user could not be distinguished from it.
pub(super) fn release_assigned_user(pod: &mut Value, subject: &Subject) {
    let on_openshift = [USERS, GROUPS]
        .iter()
        .any(|name| subject.namespace_annotations.contains_key(*name));
    if !on_openshift || !proxy_has_user_of_application(pod) {
        return;
    }
    let context = containers::sidecar_mut(pod).and_then(|proxy| proxy.get_mut("securityContext"));
    if let Some(context) = context.and_then(Value::as_object_mut) {
        context.shift_remove("runAsUser");
        context.shift_remove("runAsGroup");
    }
}

fn proxy_has_user_of_application(pod: &Value) -> bool {
    let (mut proxy, mut application) = (0, 0);
    for list in [CONTAINERS, INIT_CONTAINERS] {
        for container in containers::of(pod, list) {
            let Some(user) = container["securityContext"]["runAsUser"].as_i64() else {
                continue;
            };
            match container["name"].as_str().unwrap_or_default() {
                PROXY => proxy = user,
                INIT | VALIDATION => {}
                _ => application = user,
            }
        }
    }
    proxy == application
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn annotations(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter();
        entries
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_last_ids_of_the_namespace_are_used() {
        for (entries, user, group) in [
            (&[][..], 1337, 1337),
            (&[(USERS, "1000/10")], 1009, 1009),
            (&[(USERS, "1000-1500"), (GROUPS, "5/2,9/9")], 1500, 6),
            (&[(GROUPS, "5/2")], 1337, 6),
            (&[(USERS, "x"), (GROUPS, "")], 1337, 1337),
            (&[(USERS, "4294967295/9")], 1337, 1337),
        ] {
            assert_eq!(
                Ids::of(&annotations(entries)),
                Ids { user, group },
                "{entries:?}"
            );
        }
    }

    #[test]
    fn only_an_assigned_user_is_released() {
        let pod = |proxy: i64| {
            json!({"spec": {"containers": [
                {"name": "a", "securityContext": {"runAsUser": 7}},
                {"name": PROXY, "securityContext": {"runAsUser": proxy, "x": 1}},
            ]}})
        };
        let mut subject = Subject::default();
        let released = |proxy, subject: &Subject| {
            let mut pod = pod(proxy);
            release_assigned_user(&mut pod, subject);
            pod["spec"]["containers"][1]["securityContext"].clone()
        };
        assert_eq!(released(7, &subject), json!({"runAsUser": 7, "x": 1}));
        subject.namespace_annotations = annotations(&[(USERS, "1000/10")]);
        assert_eq!(released(7, &subject), json!({"x": 1}));
        assert_eq!(released(8, &subject), json!({"runAsUser": 8, "x": 1}));
    }
}
