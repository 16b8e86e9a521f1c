//! Authentication and authorization as in the real one (RBAC): an existing `ServiceAccount` has the
//! permissions of the roles that are bound to it.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    resource::{Resource, Target},
    selector::Selector,
    status::Failure,
    store::Store,
};

const GROUP: &str = "rbac.authorization.k8s.io/v1";

/// The account whose requests are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The start of an account's user name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

impl Account {
    /// The account's token, which is its user name: nothing here is secret.
    pub(super) fn token(&self) -> String {
        format!("{SERVICE_ACCOUNT}{}:{}", self.namespace, self.name)
    }

    pub(super) fn of_token(token: &str) -> Option<Self> {
        let (namespace, name) = token.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// The verb and the object of a request.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    verb: &'a str,
    target: &'a Target<'a>,
    /// The one object. A list or watch names it by its field selector.
    name: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(verb: &'a str, target: &'a Target<'a>, selector: &'a Selector) -> Self {
        let name = target.name.or_else(|| selector.name());
        Self { verb, target, name }
    }
}

/// Refuses a request that `account` is not permitted to make.
pub(super) fn authorize(
    store: &Store,
    account: &Account,
    attributes: Attributes<'_>,
) -> Result<(), Failure> {
    let Account { namespace, name } = account;
    let user = account.token();
    if object(store, "v1", "ServiceAccount", namespace, name).is_none() {
        return Err(Failure::unauthorized());
    }
    let allowed = rules(store, account, attributes.target.namespace);
    if allowed.iter().any(|rule| allows(rule, attributes)) {
        return Ok(());
    }
    let Attributes { verb, target, .. } = attributes;
    let Resource { plural, group, .. } = target.resource;
    let object = attributes.name.unwrap_or_default();
    let scope = match target.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    Err(Failure::forbidden(format!(
        "{plural} {object:?} is forbidden: User \"{user}\" cannot \
         {verb} resource {plural:?} in API group {group:?} {scope}"
    )))
}

/// The rules of the roles that are bound to `account` for objects of `namespace`.
fn rules(store: &Store, account: &Account, namespace: Option<&str>) -> Vec<PolicyRule> {
    let mut bindings: Vec<_> = all(store, "ClusterRoleBinding", None);
    if let Some(namespace) = namespace {
        bindings.extend(all(store, "RoleBinding", Some(namespace)));
    }
    let bound = bindings
        .iter()
        .filter(|binding| is_subject(binding, account));
    bound
        .filter_map(|binding| role(store, binding))
        .flat_map(|role| Vec::deserialize(&role["rules"]).unwrap_or_default())
        .collect()
}

fn is_subject(binding: &Value, account: &Account) -> bool {
    let subjects = binding["subjects"].as_array();
    subjects.into_iter().flatten().any(|subject| {
        subject["kind"] == "ServiceAccount"
            && subject["namespace"] == account.namespace.as_str()
            && subject["name"] == account.name.as_str()
    })
}

fn role<'a>(store: &'a Store, binding: &Value) -> Option<&'a Value> {
    let reference = &binding["roleRef"];
    let kind = reference["kind"].as_str()?;
    let namespace = match kind {
        "Role" => binding["metadata"]["namespace"].as_str()?,
        _ => "",
    };
    object(store, GROUP, kind, namespace, reference["name"].as_str()?)
}

fn object<'a>(
    store: &'a Store,
    api_version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Option<&'a Value> {
    store.get(Resource::of(api_version, kind)?, namespace, name)
}

fn all(store: &Store, kind: &str, namespace: Option<&str>) -> Vec<Value> {
    let list = |resource| {
        let target = Target {
            resource,
            namespace,
            name: None,
            part: None,
        };
        store.list(&target, &Selector::default())
    };
    Resource::of(GROUP, kind).map(list).unwrap_or_default()
}

fn allows(rule: &PolicyRule, attributes: Attributes<'_>) -> bool {
    let Attributes { verb, target, name } = attributes;
    let resource = match target.part {
        Some(part) => format!("{}/{part}", target.resource.plural),
        None => target.resource.plural.to_owned(),
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(&rule.verbs, verb)
        && has(
            rule.api_groups.as_deref().unwrap_or_default(),
            target.resource.group,
        )
        && has(rule.resources.as_deref().unwrap_or_default(), &resource)
        && (names.is_empty() || name.is_some_and(|name| names.iter().any(|other| other == name)))
}

fn has(list: &[String], what: &str) -> bool {
    list.iter().any(|one| one == "*" || one == what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> Store {
        let mut store = Store::default();
        let subjects =
            json!([{"kind": "ServiceAccount", "namespace": "mesh", "name": "interceptor"}]);
        let objects = [
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"namespace": "mesh", "name": "interceptor"}}),
            json!({"apiVersion": GROUP, "kind": "ClusterRole", "metadata": {"name": "node"}, "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "resourceNames": ["one"]},
            ]}),
            json!({"apiVersion": GROUP, "kind": "ClusterRoleBinding", "metadata": {"name": "node"},
                "roleRef": {"kind": "ClusterRole", "name": "node"}, "subjects": subjects}),
            json!({"apiVersion": GROUP, "kind": "Role",
                "metadata": {"namespace": "mesh", "name": "own"}, "rules": [
                {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["watch"],
                    "resourceNames": ["interceptor"]},
            ]}),
            json!({"apiVersion": GROUP, "kind": "RoleBinding",
                "metadata": {"namespace": "mesh", "name": "own"},
                "roleRef": {"kind": "Role", "name": "own"}, "subjects": subjects}),
        ];
        for object in objects {
            let text = |field: &str| object[field].as_str().unwrap().to_owned();
            let resource = Resource::of(&text("apiVersion"), &text("kind")).unwrap();
            store.put(resource, object);
        }
        store
    }

    fn account() -> Account {
        Account {
            namespace: "mesh".to_owned(),
            name: "interceptor".to_owned(),
        }
    }

    fn attributes(store: &Store, verb: &str, path: &str, selector: &str) -> Result<(), Failure> {
        let (target, selector) = (
            Target::parse(path).unwrap(),
            Selector::parse(selector).unwrap(),
        );
        authorize(store, &account(), Attributes::new(verb, &target, &selector))
    }

    fn allowed(verb: &str, path: &str, selector: &str) -> bool {
        attributes(&store(), verb, path, selector).is_ok()
    }

    #[test]
    fn only_requests_named_by_a_rule_are_allowed() {
        assert!(allowed("list", "/api/v1/pods", ""));
        assert!(allowed("watch", "/api/v1/namespaces/shop/pods", ""));
        assert!(!allowed("get", "/api/v1/namespaces/shop/pods/web", ""));
        assert!(!allowed("list", "/api/v1/namespaces", ""));
        assert!(allowed("get", "/api/v1/nodes/one", ""));
        assert!(!allowed("get", "/api/v1/nodes/two", ""));
        assert!(!allowed("get", "/api/v1/nodes/one/status", ""));
        assert!(!allowed("list", "/api/v1/nodes", ""));
    }

    #[test]
    fn a_role_applies_to_its_namespace_and_object() {
        let (own, other) = (
            "/api/v1/namespaces/mesh/serviceaccounts",
            "/api/v1/namespaces/shop/serviceaccounts",
        );
        assert!(allowed("watch", own, "metadata.name=interceptor"));
        assert!(!allowed("watch", own, "metadata.name=default"));
        assert!(!allowed("watch", own, "metadata.name!=interceptor"));
        assert!(!allowed("watch", own, ""));
        assert!(!allowed("watch", other, "metadata.name=interceptor"));
    }

    #[test]
    fn nothing_is_allowed_without_the_account_or_a_binding() {
        let mut without_account = store();
        let accounts = Resource::of("v1", "ServiceAccount").unwrap();
        assert!(without_account.remove(accounts, "mesh", "interceptor"));
        let refused = attributes(&without_account, "list", "/api/v1/pods", "");
        assert_eq!(refused, Err(Failure::unauthorized()));
        let mut without_binding = store();
        let bindings = Resource::of(GROUP, "ClusterRoleBinding").unwrap();
        assert!(without_binding.remove(bindings, "", "node"));
        assert!(attributes(&without_binding, "list", "/api/v1/pods", "").is_err());
    }
}
