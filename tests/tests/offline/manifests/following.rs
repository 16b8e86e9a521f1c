//! Following the documents literally results in pods that can start: their files can be written,
//! and their directories can be rendered and applied.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use interceptor_testkit::{
    command::run,
    manifests::{only, render_at, workspace},
};
use k8s_openapi::api::{apps::v1::DaemonSet, batch::v1::Job, core::v1::PodSpec};
use serde_json::Value;
use tempfile::TempDir;

use super::source;

const DOCUMENTS: [&str; 2] = ["docs/deploy.md", "README.md"];

/// The fenced blocks of a document: the info string, and the lines.
fn blocks(document: &str) -> Vec<(String, Vec<String>)> {
    let text = source(document);
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| !line.starts_with("```"));
        blocks.push((kind.to_owned(), block.map(str::to_owned).collect()));
    }
    blocks
}

/// The commands of a document, without prompts and comments.
fn commands(document: &str) -> Vec<Vec<String>> {
    let shells = blocks(document).into_iter();
    let lines = shells
        .filter(|(kind, _)| kind == "console" || kind == "sh")
        .flat_map(|(_, lines)| lines);
    lines
        .map(|line| {
            let line = line.strip_prefix("$ ").unwrap_or(&line);
            let words = line.split_whitespace();
            words
                .take_while(|word| *word != "#")
                .map(str::to_owned)
                .collect()
        })
        .collect()
}

/// A copy of the repository's `deploy/` with the files of docs/deploy.md.
fn followed() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut copying = Command::new("cp");
    copying
        .arg("-r")
        .arg(workspace().join("deploy"))
        .arg(copy.path());
    run(&mut copying, "").unwrap();
    for (_, lines) in blocks("docs/deploy.md") {
        let path = lines
            .first()
            .and_then(|line| line.strip_prefix("# deploy/"));
        let Some(path) = path else {
            continue;
        };
        let path = copy.path().join("deploy").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, lines.join("\n")).unwrap();
    }
    copy
}

/// The directories of a document's commands `kubectl VERB -k`.
fn directories(document: &str, verb: &str) -> BTreeSet<String> {
    let given = commands(document).into_iter().filter_map(|command| {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["kubectl", of, "-k", directory, ..] if of == verb => Some(directory.to_owned()),
            _ => None,
        }
    });
    given.collect()
}

/// The image of a document's push command.
fn pushed(document: &str) -> String {
    let to = commands(document).into_iter().find_map(|command| {
        let last = command.last()?.strip_prefix("docker://")?.to_owned();
        (command[0] == "skopeo").then_some(last)
    });
    to.unwrap_or_else(|| panic!("{document} pushes no image"))
}

fn rendered(at: &Path, directory: &str) -> Vec<Value> {
    render_at(&at.join(directory)).unwrap_or_else(|error| panic!("{directory}: {error:#}"))
}

/// The pods of the objects.
fn pods(objects: &[Value]) -> Vec<PodSpec> {
    let made = objects.iter().filter_map(|object| {
        let kind = object["kind"].as_str()?;
        ["DaemonSet", "Job"].contains(&kind).then(|| {
            let spec = object["spec"]["template"]["spec"].clone();
            serde_json::from_value(spec).unwrap()
        })
    });
    made.collect()
}

#[test]
fn the_applied_manifests_run_the_pushed_image() {
    let copy = followed();
    for document in DOCUMENTS {
        let image = pushed(document);
        let applied = directories(document, "apply");
        let objects = applied.iter().flat_map(|at| rendered(copy.path(), at));
        let pods = pods(&objects.collect::<Vec<_>>());
        assert!(!pods.is_empty(), "{document}: {applied:?} have no pods");
        for container in pods.iter().flat_map(|pod| &pod.containers) {
            let named = container.image.as_ref();
            assert_eq!(named, Some(&image), "{document}: {}", container.name);
        }
    }
}

#[test]
fn the_deleted_objects_are_the_applied_ones() {
    for verb in ["apply", "delete"] {
        // The namespace alone: for Helm.
        let expected = ["deploy/namespace", "deploy/own", "deploy/own-uninstall"];
        let directories = directories("docs/deploy.md", verb);
        assert_eq!(
            directories,
            BTreeSet::from(expected.map(str::to_owned)),
            "{verb}"
        );
    }
    // Without it, kubectl exits with an error when the DaemonSet is deleted already, and does not
    // wait.
    for command in commands("docs/deploy.md") {
        if command.starts_with(&["kubectl".to_owned(), "delete".to_owned()]) {
            assert!(
                command.contains(&"--ignore-not-found".to_owned()),
                "{command:?}"
            );
        }
    }
}

/// The other objects of the commands.
#[test]
fn the_commands_name_rendered_objects() {
    let copy = followed();
    let own = rendered(copy.path(), "deploy/own");
    let set: DaemonSet = serde_json::from_value(only(&own, "DaemonSet").unwrap().clone()).unwrap();
    let namespace = set.metadata.namespace.unwrap();
    let name = set.metadata.name.unwrap();
    let deletes = format!("kubectl -n {namespace} delete daemonset {name}");
    let uninstall = rendered(copy.path(), "deploy/own-uninstall");
    let job: Job = serde_json::from_value(only(&uninstall, "Job").unwrap().clone()).unwrap();
    let namespace = job.metadata.namespace.unwrap();
    let name = job.metadata.name.unwrap();
    let waits = format!("kubectl -n {namespace} wait --for=condition=complete job/{name}");
    let all: Vec<_> = commands("docs/deploy.md")
        .iter()
        .map(|command| command.join(" "))
        .collect();
    for expected in [deletes, waits] {
        let is_there = all.iter().any(|command| command.starts_with(&expected));
        assert!(is_there, "no `{expected}` in {all:#?}");
    }
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.node_name.as_deref(), Some("name-of-the-node"));
}

/// The values of a custom overlay reach the agent, and stay immutable.
#[test]
fn a_custom_overlay_sets_values() {
    let copy = followed();
    let own = rendered(copy.path(), "deploy/own");
    let values = only(&own, "ConfigMap").unwrap();
    let repositories = &values["data"]["imageRepositories"];
    assert!(pushed("docs/deploy.md").starts_with(repositories.as_str().unwrap()));
    assert_eq!(values["immutable"], true);
}
