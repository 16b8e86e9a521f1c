//! The kinds of objects, and the meaning of a path.

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its group, empty for the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name in paths and in rules.
    pub plural: &'static str,
    /// Its `kind`.
    pub kind: &'static str,
    /// Whether it is namespaced.
    pub namespaced: bool,
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group,
        version,
        plural,
        kind,
        namespaced: true,
    }
}

const fn global(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group,
        version,
        plural,
        kind,
        namespaced: false,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// All that are served.
pub const RESOURCES: [Resource; 20] = [
    namespaced("", "v1", "pods", "Pod"),
    namespaced("", "v1", "configmaps", "ConfigMap"),
    namespaced("", "v1", "events", "Event"),
    namespaced("", "v1", "resourcequotas", "ResourceQuota"),
    namespaced("", "v1", "secrets", "Secret"),
    namespaced("", "v1", "serviceaccounts", "ServiceAccount"),
    global("", "v1", "namespaces", "Namespace"),
    global("", "v1", "nodes", "Node"),
    global(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
    namespaced("apps", "v1", "daemonsets", "DaemonSet"),
    namespaced("batch", "v1", "jobs", "Job"),
    namespaced("coordination.k8s.io", "v1", "leases", "Lease"),
    namespaced("events.k8s.io", "v1", "events", "Event"),
    namespaced(
        "k8s.cni.cncf.io",
        "v1",
        "network-attachment-definitions",
        "NetworkAttachmentDefinition",
    ),
    namespaced(
        "networking.istio.io",
        "v1beta1",
        "proxyconfigs",
        "ProxyConfig",
    ),
    global("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass"),
    global(RBAC, "v1", "clusterroles", "ClusterRole"),
    global(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding"),
    namespaced(RBAC, "v1", "roles", "Role"),
    namespaced(RBAC, "v1", "rolebindings", "RoleBinding"),
];

impl Resource {
    /// The resource with this `apiVersion` and `kind`.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        RESOURCES
            .iter()
            .find(|resource| resource.api_version() == api_version && resource.kind == kind)
    }

    /// `apps/v1`, or `v1` in the core.
    #[must_use]
    pub fn api_version(&self) -> String {
        let Self { group, version, .. } = self;
        if group.is_empty() {
            return (*version).to_owned();
        }
        format!("{group}/{version}")
    }
}

/// The subject of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The kind.
    pub(super) resource: &'static Resource,
    /// Its namespace, if only one.
    pub(super) namespace: Option<&'a str>,
    /// The object's name, if the request is about one object.
    pub(super) name: Option<&'a str>,
    /// The subresource: `status`.
    pub(super) part: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The subject of `path`: `/api/v1/namespaces/default/pods/web`.
    #[must_use]
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let rest: Vec<_> = parts.collect();
        let (namespace, rest) = match rest[..] {
            // The path of a namespace itself has at most a name and a subresource.
            ["namespaces", namespace, _, ..] if rest[2] != "status" => {
                (Some(namespace), &rest[2..])
            }
            _ => (None, &rest[..]),
        };
        let (plural, name, part) = match *rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(name), None),
            [plural, name, part] => (plural, Some(name), Some(part)),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| {
            (resource.group, resource.version, resource.plural) == (group, version, plural)
        })?;
        (resource.namespaced || namespace.is_none()).then_some(Self {
            resource,
            namespace,
            name,
            part,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (
        &'static str,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
    );

    fn parsed(path: &str) -> Option<Parts<'_>> {
        let target = Target::parse(path)?;
        let Target {
            namespace,
            name,
            part,
            ..
        } = target;
        Some((target.resource.kind, namespace, name, part))
    }

    #[test]
    fn paths_are_those_of_kubernetes() {
        assert_eq!(parsed("/api/v1/pods"), Some(("Pod", None, None, None)));
        assert_eq!(
            parsed("/api/v1/namespaces/shop/pods/web"),
            Some(("Pod", Some("shop"), Some("web"), None))
        );
        assert_eq!(
            parsed("/api/v1/namespaces/shop"),
            Some(("Namespace", None, Some("shop"), None))
        );
        assert_eq!(
            parsed("/api/v1/nodes/one/status"),
            Some(("Node", None, Some("one"), Some("status")))
        );
        assert_eq!(
            parsed("/apis/apps/v1/namespaces/mesh/daemonsets/agent"),
            Some(("DaemonSet", Some("mesh"), Some("agent"), None))
        );
    }

    #[test]
    fn an_unsupported_resource_is_not_found() {
        for path in [
            "/",
            "/version",
            "/api/v1/bindings",
            "/apis/apps/v1/pods",
            "/api/v2/pods",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }
}
