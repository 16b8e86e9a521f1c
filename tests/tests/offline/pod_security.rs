//! The Pod Security Standard `restricted`, as the admission of Kubernetes checks it
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodSpec, SeccompProfile, SecurityContext, Volume,
};

/// What `pod` violates, by container and field; nothing if it is admitted.
pub(crate) fn violations(pod: &PodSpec) -> Vec<String> {
    let mut found = of_pod(pod);
    let containers = pod.containers.iter();
    for container in containers.chain(pod.init_containers.iter().flatten()) {
        let problems = of_container(container, pod);
        found.extend(problems.map(|problem| format!("{}: {problem}", container.name)));
    }
    found
}

fn of_pod(pod: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in [
        ("hostNetwork", pod.host_network),
        ("hostPID", pod.host_pid),
        ("hostIPC", pod.host_ipc),
    ] {
        if value == Some(true) {
            found.push(name.to_owned());
        }
    }
    for volume in pod.volumes.iter().flatten().filter(|one| !is_allowed(one)) {
        found.push(format!("volume {}", volume.name));
    }
    let context = pod.security_context.as_ref();
    if context.is_some_and(|context| context.sysctls.as_ref().is_some_and(|all| !all.is_empty())) {
        found.push("sysctls".to_owned());
    }
    found
}

fn is_allowed(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}

fn of_container(container: &Container, pod: &PodSpec) -> impl Iterator<Item = &'static str> {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    let is_non_root = own.run_as_non_root.or(of_pod.run_as_non_root);
    let seccomp = own.seccomp_profile.clone().or(of_pod.seccomp_profile);
    let ports = container.ports.as_deref().unwrap_or_default();
    let has_host_port = ports.iter().any(|port| port.host_port.unwrap_or(0) != 0);
    let has_mask = own.proc_mount.as_deref().unwrap_or("Default") == "Default";
    let rules = [
        (own.privileged == Some(true), "privileged"),
        (
            own.allow_privilege_escalation != Some(false),
            "allowPrivilegeEscalation",
        ),
        (!drops_all(own.capabilities.as_ref()), "capabilities"),
        (is_non_root != Some(true), "runAsNonRoot"),
        (user == Some(0), "runAsUser"),
        (!is_confined(seccomp.as_ref()), "seccompProfile"),
        (has_host_port, "hostPort"),
        (!has_mask, "procMount"),
        (own.se_linux_options.is_some(), "seLinuxOptions"),
        (own.windows_options.is_some(), "windowsOptions"),
    ];
    rules
        .into_iter()
        .filter_map(|(violated, field)| violated.then_some(field))
}

fn drops_all(capabilities: Option<&Capabilities>) -> bool {
    capabilities.is_some_and(|capabilities| {
        let dropped = capabilities.drop.as_deref().unwrap_or_default();
        let mut added = capabilities.add.iter().flatten();
        dropped.iter().any(|name| name == "ALL") && added.all(|name| name == "NET_BIND_SERVICE")
    })
}

fn is_confined(profile: Option<&SeccompProfile>) -> bool {
    profile.is_some_and(|profile| ["RuntimeDefault", "Localhost"].contains(&&*profile.type_))
}

#[test]
fn each_violation_is_found() {
    let pod = serde_json::json!({
        "hostNetwork": true,
        "securityContext": {"sysctls": [{"name": "a", "value": "1"}]},
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}, {"name": "data", "emptyDir": {}}],
        "initContainers": [{
            "name": "init",
            "ports": [{"containerPort": 1, "hostPort": 1}],
            "securityContext": {"privileged": true, "runAsUser": 0, "procMount": "Unmasked",
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
        }],
        "containers": [{"name": "fine", "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        }}],
    });
    let pod: PodSpec = serde_json::from_value(pod).unwrap();
    let expected = [
        "hostNetwork",
        "volume host",
        "sysctls",
        "init: privileged",
        "init: allowPrivilegeEscalation",
        "init: capabilities",
        "init: runAsNonRoot",
        "init: runAsUser",
        "init: seccompProfile",
        "init: hostPort",
        "init: procMount",
    ];
    assert_eq!(violations(&pod), expected);
}
