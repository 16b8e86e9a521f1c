//! `interceptor inject`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{
    ArgGroup, Args,
    builder::{PathBufValueParser, TypedValueParser as _},
};
use interceptor_injection::decision::webhooks::{Configuration, Standard};

use super::{labels::Labels, manifests, output::Format};
use crate::{
    arguments::{dns_label, output_file, wrong_usage},
    sidecar::{SidecarOptions, of_cluster, without_sidecar},
    stdio,
};

mod atomic;
mod kube_inject;
mod parallel;
mod report;
mod run;

pub(super) use kube_inject::KubeInject;
use run::{Action, File, Job};

/// Add the sidecar to Kubernetes manifests, or remove it
///
/// Reads YAML or JSON, and writes the same format. Documents that do not change keep every byte. If
/// one document has an error, nothing is written.
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
#[derive(Args)]
#[command(
    group = ArgGroup::new("written").args(["output", "in_place", "diff", "patch", "why"]),
    group = ArgGroup::new("revised")
        .args(["namespace_labels", "inject_config_file", "from_cluster"])
        .multiple(true),
    mut_arg("revision", |option| option.requires("revised")),
    mut_arg("kubeconfig", of_cluster),
    mut_arg("context", of_cluster),
    mut_arg("uninject", without_sidecar),
    after_help = "\
Examples:
  Print the manifests with the built-in sidecar:
    interceptor inject -f app.yaml
  Show what changes in all manifests of a directory, then change them:
    interceptor inject -f manifests/ --diff
    interceptor inject -f manifests/ --in-place
  Show which rule decides for each workload:
    interceptor inject -f manifests/ --why --namespace-labels istio-injection=enabled
  Remove the sidecar again:
    interceptor inject -f app.yaml --uninject --in-place

Exit codes: 0 success, 1 failure, 2 wrong command line. With --diff: 0 no difference, 1 difference, 2 failure."
)]
pub(super) struct Inject {
    /// File or directory with manifests, - for standard input. Of a directory, the files *.yaml,
    /// *.yml and *.json are read. [default: -]
    #[arg(short, long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,

    /// Write the manifests to this file, not to standard output
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(output_file)
    )]
    output: Option<PathBuf>,

    /// Write the manifests to the files that they are read from
    #[arg(long)]
    in_place: bool,

    /// Print the difference, and write nothing
    #[arg(long)]
    diff: bool,

    /// Print a JSON Patch for each changed document, and write nothing
    #[arg(long)]
    patch: bool,

    /// Print which rule decides for each workload, and write nothing
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "uninject"
    )]
    why: Option<Format>,

    /// Remove the sidecar: exactly if it was injected by this program, as far as possible if Istio
    /// injected it
    #[arg(long, conflicts_with = "namespace_labels")]
    uninject: bool,

    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default", value_parser = dns_label)]
    namespace: String,

    /// Labels of the namespace: workloads that no injection webhook would select are skipped
    #[arg(long, value_name = "KEY=VALUE,...")]
    namespace_labels: Option<Labels>,

    #[command(flatten)]
    sidecar: SidecarOptions,
}

/// Exit code of `--diff` if there is a difference, as of `diff` and `kubectl diff`.
const DIFFERENT: u8 = 1;
/// Exit code of `--diff` if it fails.
const DIFF_FAILED: u8 = 2;

impl Inject {
    pub(super) fn run(&self) -> Result<ExitCode> {
        match self.try_run() {
            Err(error) if self.diff => {
                super::print_error(&error);
                Ok(ExitCode::from(DIFF_FAILED))
            }
            result => result,
        }
    }

    fn try_run(&self) -> Result<ExitCode> {
        let plan = self.sidecar.plan()?;
        let action = if self.uninject {
            Action::Uninject
        } else {
            Action::Inject(Box::new(plan.load()?))
        };
        let job = Job {
            action,
            namespace: &self.namespace,
            webhooks: self.webhooks(),
        };
        let sources = manifests::read(&self.files)?;
        let is_from_stdin = sources.iter().any(|source| source.path.is_none());
        if self.in_place && is_from_stdin {
            return Err(wrong_usage(
                "--in-place requires files: standard input cannot be written",
            ));
        }
        let files = job.run(sources);
        if let Some(format) = self.why {
            stdio::print(&report::why(&files, format)?)?;
            return Ok(report::exit_code(&files));
        }
        report::refuse_problems(&files)?;
        let code = self.write(&files)?;
        report::print_results(&files);
        report::print_assumption(&plan, &files);
        Ok(code)
    }

    fn webhooks(&self) -> Option<(Configuration, &Labels)> {
        let webhooks = Standard {
            revision: self.sidecar.revision(),
            by_default: false,
        };
        Some((webhooks.configuration(), self.namespace_labels.as_ref()?))
    }

    fn write(&self, files: &[File]) -> Result<ExitCode> {
        if self.diff {
            let diff: String = files.iter().map(File::diff).collect();
            stdio::print(&diff)?;
            let is_equal = diff.is_empty();
            return Ok(ExitCode::from(if is_equal { 0 } else { DIFFERENT }));
        }
        if self.patch {
            stdio::print(&super::output::json(&report::patches(files))?)?;
        } else if self.in_place {
            let changed = files.iter().filter(|file| file.text != file.source.text);
            let contents =
                changed.filter_map(|file| Some((file.source.path.as_deref()?, &*file.text)));
            atomic::write(contents)?;
        } else {
            write_stream(self.output.as_deref(), files)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes all manifests as one stream, to a file or to standard output.
fn write_stream(output: Option<&std::path::Path>, files: &[File]) -> Result<()> {
    let text = run::stream(files);
    match output {
        Some(path) => atomic::write([(path, &*text)]),
        None => stdio::print(&text),
    }
}
