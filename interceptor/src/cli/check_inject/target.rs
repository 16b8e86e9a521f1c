//! How a pod or a workload is named.

use std::str::FromStr;

use crate::arguments::is_dns_label;

/// What is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// The namespace, if the name has one.
    pub(super) namespace: Option<String>,
}

/// A kind of objects in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// As kubectl prints it.
    pub(super) name: &'static str,
    /// The path of its group and version.
    pub(super) group: &'static str,
    /// Its name in paths.
    pub(super) plural: &'static str,
    short: &'static str,
}

const fn kind(
    name: &'static str,
    group: &'static str,
    plural: &'static str,
    short: &'static str,
) -> Kind {
    Kind {
        name,
        group,
        plural,
        short,
    }
}

/// The first one is that of a name without a kind.
const KINDS: [Kind; 10] = [
    kind("pod", "/api/v1", "pods", "po"),
    kind("deployment", "/apis/apps/v1", "deployments", "deploy"),
    kind("statefulset", "/apis/apps/v1", "statefulsets", "sts"),
    kind("daemonset", "/apis/apps/v1", "daemonsets", "ds"),
    kind("replicaset", "/apis/apps/v1", "replicasets", "rs"),
    kind("job", "/apis/batch/v1", "jobs", "job"),
    kind("cronjob", "/apis/batch/v1", "cronjobs", "cj"),
    kind(
        "replicationcontroller",
        "/api/v1",
        "replicationcontrollers",
        "rc",
    ),
    kind("rollout", "/apis/argoproj.io/v1alpha1", "rollouts", "ro"),
    kind(
        "deploymentconfig",
        "/apis/apps.openshift.io/v1",
        "deploymentconfigs",
        "dc",
    ),
];

const POD: Kind = KINDS[0];

impl Kind {
    fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let mut kinds = KINDS.into_iter();
        kinds.find(|kind| [kind.name, kind.plural, kind.short].contains(&&*name))
    }

    pub(super) fn is_pod(self) -> bool {
        self == POD
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name, namespace) = match text.split_once('/') {
            None => with_namespace(POD, text),
            Some((left, name)) => match Kind::named(left) {
                Some(kind) => with_namespace(kind, name),
                None => (POD, name, Some(left)),
            },
        };
        let target = Self {
            kind,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        let parts = namespace.into_iter().chain(name.split('.'));
        if let Some(part) = parts.into_iter().find(|part| !is_dns_label(part)) {
            let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            return Err(format!(
                "{part:?} is not a name: expected POD, POD.NAMESPACE, NAMESPACE/POD or KIND/NAME, \
                 with a kind of {}",
                kinds.join(", ")
            ));
        }
        Ok(target)
    }
}

/// As istioctl: what follows the last dot is the namespace.
fn with_namespace(kind: Kind, text: &str) -> (Kind, &str, Option<&str>) {
    match text.rsplit_once('.') {
        Some((name, namespace)) => (kind, name, Some(namespace)),
        None => (kind, text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (&'static str, String, Option<String>) {
        let target = text.parse::<Target>().unwrap();
        (target.kind.name, target.name, target.namespace)
    }

    #[test]
    fn names_are_those_of_istioctl_and_kubectl() {
        for (text, kind, name, namespace) in [
            ("web-1", "pod", "web-1", None),
            ("web-1.shop", "pod", "web-1", Some("shop")),
            ("web.v1.shop", "pod", "web.v1", Some("shop")),
            ("shop/web-1", "pod", "web-1", Some("shop")),
            ("shop/web.v1", "pod", "web.v1", Some("shop")),
            ("pod/web-1", "pod", "web-1", None),
            ("deploy/web.shop", "deployment", "web", Some("shop")),
            ("Deployment/web", "deployment", "web", None),
            ("cronjobs/web", "cronjob", "web", None),
        ] {
            let expected = (kind, name.to_owned(), namespace.map(str::to_owned));
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, part) in [
            ("", ""),
            ("Web", "Web"),
            ("a/b/c", "b/c"),
            ("deployment.apps/web", "deployment.apps"),
            ("-web", "-web"),
            ("web.", ""),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.starts_with(&format!("{part:?} is not")), "{error}");
        }
    }
}
