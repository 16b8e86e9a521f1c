//! The privileges: sufficient, and minimal.

use std::{
    fs::{self, Permissions},
    iter,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use interceptor_testkit::{
    command::run,
    interceptor,
    lab::{self, Lab, STOCK},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::SecurityContext,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};

use super::{Rendered, host_path};

fn security_context(rendered: &Rendered) -> SecurityContext {
    rendered.agent().security_context.unwrap()
}

/// The capabilities that are added to none.
pub(super) fn capabilities(context: &SecurityContext) -> Vec<String> {
    let capabilities = context.capabilities.clone().unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    capabilities.add.unwrap()
}

#[test]
fn no_platform_adds_privileges_or_capabilities() {
    let base = capabilities(&security_context(Rendered::base()));
    for rendered in Rendered::platforms() {
        let context = security_context(rendered);
        assert_eq!(context.privileged, Some(false), "{}", rendered.dir);
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(capabilities(&context), base, "{}", rendered.dir);
    }
}

/// `setpriv` leaves a program exactly these, as a runtime does.
fn with_capabilities(capabilities: &[String], command: &Command) -> Command {
    let added = capabilities
        .iter()
        .map(|name| format!("+{}", name.to_lowercase()));
    let set = iter::once("-all".to_owned())
        .chain(added)
        .collect::<Vec<_>>()
        .join(",");
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--bounding-set", &set, "--inh-caps", &set]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

fn attach_with(capabilities: &[String], lab: &Lab) -> anyhow::Result<String> {
    run(
        &mut with_capabilities(capabilities, &lab.attach_command(STOCK)),
        "",
    )
}

#[test]
fn the_daemonsets_capabilities_are_enough_to_capture_a_pod() {
    let capabilities = capabilities(&security_context(Rendered::base()));
    let lab = Lab::new().unwrap();
    attach_with(&capabilities, &lab).unwrap();
    let _listeners = lab.start_proxy().unwrap();
    assert_eq!(lab.dial_all().unwrap(), lab::all_captured());
    for verb in ["status", "detach"] {
        run(
            &mut with_capabilities(&capabilities, &lab.command(verb)),
            "",
        )
        .unwrap();
    }
    assert_eq!(lab.dial_all().unwrap(), lab::all_direct());
}

/// `DAC_OVERRIDE` is for the host's directories, which are root's here.
#[test]
fn an_attach_names_each_missing_capability() {
    let capabilities = capabilities(&security_context(Rendered::base()));
    let lab = Lab::new().unwrap();
    for left_out in capabilities.iter().filter(|name| *name != "DAC_OVERRIDE") {
        let mut others = capabilities.clone();
        others.retain(|name| name != left_out);
        let error = attach_with(&others, &lab).unwrap_err().to_string();
        assert!(error.contains(&format!("CAP_{left_out}")), "{error}");
    }
}

fn uninstalling(example: &str) -> SecurityContext {
    let job: Job = Rendered::of(example).only("Job");
    let mut containers = job.spec.unwrap().template.spec.unwrap().containers;
    containers.remove(0).security_context.unwrap()
}

/// The CNI directories of a node, with our plugin in them, writable only by their owner.
fn installed_for(owner: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let network = r#"{"name": "net", "cniVersion": "1.0.0",
        "plugins": [{"type": "bridge"}, {"type": "interceptor-cni"}]}"#;
    for name in ["bin", "net.d"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("bin/interceptor-cni"), "").unwrap();
    fs::write(at("net.d/10-net.conflist"), network).unwrap();
    for (name, mode) in [
        ("net.d/10-net.conflist", 0o600),
        ("net.d", 0o700),
        ("bin", 0o700),
    ] {
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        chown(at(name), Some(owner), Some(owner)).unwrap();
    }
    // The directories on the path.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

fn uninstall_with(capabilities: &[String], dir: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(interceptor::binary());
    command.args(["uninstall", "--node"]);
    for (option, name) in [("--cni-bin-dir", "bin"), ("--cni-conf-dir", "net.d")] {
        command.arg(option).arg(dir.join(name));
    }
    run(&mut with_capabilities(capabilities, &command), "")
}

#[test]
fn the_uninstall_jobs_one_capability_is_enough_and_needed() {
    let own = capabilities(&uninstalling("examples/uninstall"));
    assert_eq!(own, ["DAC_OVERRIDE"]);
    let dir = installed_for(1000);
    let error = uninstall_with(&[], dir.path()).unwrap_err().to_string();
    assert!(error.contains("net.d"), "{error}");
    uninstall_with(&own, dir.path()).unwrap();
    assert!(!dir.path().join("bin/interceptor-cni").exists());
    let network = fs::read_to_string(dir.path().join("net.d/10-net.conflist")).unwrap();
    assert!(network.contains("bridge") && !network.contains("interceptor"));
}

#[test]
fn uninstalling_requires_the_agents_capabilities() {
    let now = uninstalling("examples/uninstall-now");
    let agent = security_context(Rendered::base());
    assert_eq!(capabilities(&now), capabilities(&agent));
    assert_eq!(now.seccomp_profile, agent.seccomp_profile);
    assert_eq!(now.privileged, Some(false));
    assert_eq!(now.allow_privilege_escalation, None);
}

/// The rules of all roles.
fn policy_rules(rendered: &Rendered) -> Vec<PolicyRule> {
    let cluster = rendered.typed::<ClusterRole>("ClusterRole");
    let own = rendered.typed::<Role>("Role");
    let cluster = cluster.into_iter().filter_map(|role| role.rules);
    let own = own.into_iter().filter_map(|role| role.rules);
    cluster.chain(own).flatten().collect()
}

/// The same, as `group/resource: verbs`.
fn rules(rendered: &Rendered) -> Vec<String> {
    let mut rules: Vec<_> = policy_rules(rendered).iter().map(shown).collect();
    rules.sort();
    rules
}

/// kustomize appends a hash to the name of a generated `ConfigMap`, and replaces that name in every
/// role's `resourceNames`, whatever resource the role refers to.
#[test]
fn every_object_that_a_role_names_is_rendered_under_that_name() {
    for rendered in Rendered::platforms() {
        for rule in policy_rules(rendered) {
            let kind = match rule.resources.as_deref().unwrap_or_default() {
                [resource] if resource == "daemonsets" => "DaemonSet",
                [resource] if resource == "namespaces" => "Namespace",
                [resource] if resource == "serviceaccounts" => "ServiceAccount",
                _ => continue,
            };
            let names: Vec<_> = rendered
                .kind(kind)
                .filter_map(|object| object["metadata"]["name"].as_str())
                .collect();
            let dir = &rendered.dir;
            assert_eq!(rule.resource_names.as_deref().unwrap(), names, "{dir}");
        }
    }
}

fn shown(rule: &PolicyRule) -> String {
    let group = rule.api_groups.as_ref().unwrap().join(",");
    let resources = rule.resources.as_ref().unwrap().join(",");
    let verbs = rule.verbs.join(",");
    format!("{group}/{resources}: {verbs}")
}

#[test]
fn the_agent_may_read_and_create_events_only() {
    for rendered in Rendered::platforms() {
        assert_eq!(
            rules(rendered),
            [
                "/namespaces: list,watch",
                "/pods: get,list,watch",
                "/serviceaccounts: list,watch",
                "apps/daemonsets: get",
                "events.k8s.io/events: create",
                "node.k8s.io/runtimeclasses: get",
            ],
            "{}",
            rendered.dir
        );
    }
}

/// The additional permissions of a component.
fn added_by(example: &str) -> Vec<String> {
    let base = rules(Rendered::base());
    let mut added = rules(&Rendered::of(example));
    added.retain(|rule| !base.contains(rule));
    added
}

#[test]
fn nodes_may_be_patched_only_with_the_taint_component() {
    assert_eq!(added_by("examples/taint"), ["/nodes: get,patch"]);
}

#[test]
fn namespaces_may_be_read_only_with_live_annotations() {
    assert_eq!(added_by("examples/live-annotations"), ["/namespaces: get"]);
}

#[test]
fn only_written_directories_are_mounted_writable() {
    for rendered in Rendered::platforms() {
        let volumes = rendered.pod().volumes.unwrap();
        let mounts = rendered.agent().volume_mounts.unwrap();
        let mut read_only: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.read_only == Some(true))
            .map(|mount| mount.name.as_str())
            .collect();
        read_only.sort_unstable();
        assert_eq!(read_only, ["cgroup", "netns"], "{}", rendered.dir);
        assert_eq!(host_path(&volumes, "bpffs"), "/sys/fs/bpf");
    }
}
