//! What the command reports besides the manifests.

use std::process::ExitCode;

use anyhow::{Result, bail};
use interceptor_injection::{decision::Reason, diff};
use serde::Serialize;
use serde_json::{Value, json};

use super::run::{Changes, Done, File, Item};
use crate::{
    cli::output::{Format, lines, table},
    sidecar::Plan,
    stdio::message,
};

/// Fails with all problems if there are any.
pub(super) fn refuse_problems(files: &[File]) -> Result<()> {
    let problems: Vec<_> = files.iter().flat_map(|file| &file.problems).collect();
    for problem in &problems {
        message!("interceptor: {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("nothing is written because of this problem"),
        count => bail!("nothing is written because of these {count} problems"),
    }
}

/// Says so if there is nothing that could be injected: a wrong file is more likely than an empty one.
fn print_emptiness(files: &[File]) {
    if files.iter().any(|file| !file.workloads.is_empty()) {
        return;
    }
    let objects = if files.iter().any(|file| file.has_objects) {
        "no pod and no workload"
    } else {
        "no objects"
    };
    let mut names = files.iter().map(|file| file.source.name());
    match (names.next(), names.next()) {
        (Some(name), None) => message!("{name} has {objects}"),
        _ => message!("the files have {objects}"),
    }
}

/// One line for each workload, and one for each of its warnings.
pub(super) fn print_results(files: &[File]) {
    print_emptiness(files);
    for file in files {
        for item in &file.workloads {
            print_result(item);
        }
    }
    print_notes(files);
}

/// What an injected sidecar requires of a cluster that was not read.
pub(super) fn print_assumption(plan: &Plan, files: &[File]) {
    let mut items = files.iter().flat_map(|file| &file.workloads);
    let is_injected = items.any(|item| matches!(item.result, Ok(Done::Injected { .. })));
    if let Some(assumption) = plan
        .assumption()
        .filter(|_| is_injected && !plan.needs_cluster())
    {
        message!("{assumption}");
    }
}

fn print_notes(files: &[File]) {
    for note in files.iter().flat_map(|file| &file.notes) {
        message!("{note}");
    }
}

fn print_warnings(item: &Item, warnings: &[String]) {
    for warning in warnings {
        message!("{}: {warning}", item.object());
    }
}

fn print_result(item: &Item) {
    let object = item.object();
    match &item.result {
        Ok(Done::Injected { warnings, .. }) => {
            message!("{object} injected");
            print_warnings(item, warnings);
        }
        Ok(Done::Uninjected { notes }) => {
            message!("{object} uninjected");
            print_warnings(item, notes);
        }
        Ok(Done::Skipped(reason)) => message!("{object} skipped: {reason}"),
        Ok(Done::NotInjected) => message!("{object} skipped: it is not injected"),
        Err(_) => {}
    }
}

/// The messages of `istioctl kube-inject`, and warnings.
pub(super) fn print_istioctl_results(files: &[File]) {
    print_emptiness(files);
    for item in files.iter().flat_map(|file| &file.workloads) {
        match &item.result {
            Ok(Done::Skipped(reason)) => {
                let (owner, namespace) = (&item.workload.owner, &item.namespace);
                let problem = match reason {
                    Reason::HostNetwork => "host networking enabled",
                    _ => "sidecar injection disabled",
                };
                message!(
                    "===> Skipping injection because {} \"{namespace}/{}\" has {problem}",
                    owner.kind,
                    owner.name
                );
            }
            Ok(Done::Injected { warnings, .. }) => print_warnings(item, warnings),
            _ => {}
        }
    }
    print_notes(files);
}

/// Why one workload is injected or not. Fields may be added, and keep their meaning.
#[derive(Serialize)]
struct Decision<'a> {
    object: String,
    namespace: &'a str,
    file: String,
    /// `injected`, `skipped` or `refused`.
    result: &'static str,
    rule: Option<&'static str>,
    reason: String,
}

impl<'a> Decision<'a> {
    /// Nothing for a sidecar that is removed.
    fn of(file: &File, item: &'a Item) -> Option<Self> {
        let (result, rule, reason) = match &item.result {
            Ok(Done::Injected {
                reason, replaced, ..
            }) => {
                let replaced = replaced.iter().map(|replaced| format!("; {replaced}"));
                let words = replaced.fold(reason.words().to_owned(), |all, one| all + &one);
                ("injected", Some(reason.label()), words)
            }
            Ok(Done::Skipped(reason)) => {
                ("skipped", Some(reason.label()), reason.words().to_owned())
            }
            Err(refusal) => ("refused", None, refusal.to_string()),
            Ok(Done::Uninjected { .. } | Done::NotInjected) => return None,
        };
        Some(Self {
            object: item.object(),
            namespace: &item.namespace,
            file: file.source.name(),
            result,
            rule,
            reason,
        })
    }
}

/// The decision about each workload.
pub(super) fn why(files: &[File], format: Format) -> Result<String> {
    let decisions = files.iter().flat_map(|file| {
        let items = file.workloads.iter();
        items.filter_map(|item| Decision::of(file, item))
    });
    let decisions: Vec<_> = decisions.collect();
    for problem in files.iter().flat_map(|file| &file.problems) {
        message!("interceptor: {problem}");
    }
    format.render(&decisions, |decisions| Ok(decision_table(decisions)))
}

fn decision_table(decisions: &[Decision<'_>]) -> String {
    let mut table = table(["OBJECT", "NAMESPACE", "RESULT", "RULE", "REASON"]);
    for decision in decisions {
        table.add_row([
            &decision.object,
            decision.namespace,
            decision.result,
            decision.rule.unwrap_or("-"),
            &decision.reason,
        ]);
    }
    lines(table)
}

/// Success, unless a workload is refused or a file cannot be read.
pub(super) fn exit_code(files: &[File]) -> ExitCode {
    if files.iter().all(|file| file.problems.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A JSON Patch for each document that changes.
pub(super) fn patches(files: &[File]) -> Vec<Value> {
    let patches = files.iter().flat_map(|file| {
        let name = file.source.name();
        file.documents
            .iter()
            .map(move |document| patch(&name, document))
    });
    patches.collect()
}

fn patch(file: &str, document: &Changes) -> Value {
    let object = &document.after;
    json!({
        "file": file,
        "document": document.number,
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "name": object["metadata"]["name"],
        "namespace": object["metadata"]["namespace"],
        "patch": diff::json_patch(&document.before, object),
    })
}
