//! What the client may do: the rules of a `ClusterRole` or `Role`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::resource::Target;

/// Whether one of `rules` allows `verb`.
#[must_use]
pub(super) fn allow(rules: &[PolicyRule], verb: &str, target: &Target<'_>) -> bool {
    rules.iter().any(|rule| allows(rule, verb, target))
}

fn allows(rule: &PolicyRule, verb: &str, target: &Target<'_>) -> bool {
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
        && (names.is_empty()
            || target
                .name
                .is_some_and(|name| names.iter().any(|other| other == name)))
}

fn has(list: &[String], what: &str) -> bool {
    list.iter().any(|one| one == "*" || one == what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowed(verb: &str, path: &str) -> bool {
        let rules = json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "resourceNames": ["one"]},
        ]);
        let rules: Vec<PolicyRule> = serde_json::from_value(rules).unwrap();
        allow(&rules, verb, &Target::parse(path).unwrap())
    }

    #[test]
    fn only_what_a_rule_names_is_allowed() {
        assert!(allowed("list", "/api/v1/pods"));
        assert!(allowed("watch", "/api/v1/namespaces/shop/pods"));
        assert!(!allowed("get", "/api/v1/namespaces/shop/pods/web"));
        assert!(!allowed("list", "/api/v1/namespaces"));
        assert!(allowed("get", "/api/v1/nodes/one"));
        assert!(!allowed("get", "/api/v1/nodes/two"));
        assert!(!allowed("get", "/api/v1/nodes/one/status"));
        assert!(!allowed("list", "/api/v1/nodes"));
    }
}
