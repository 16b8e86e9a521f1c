//! `interceptor kube-inject`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    choices::Choices,
    input, report,
    run::{Action, Job},
    write_stream,
};

/// Add the sidecar to Kubernetes manifests, with the arguments of `istioctl kube-inject`
///
/// Injects every workload that is not in the host network and does not decline. Unlike istioctl, it
/// keeps the text of what does not change, writes nothing if one document has an error, and reads
/// the configuration from files, never from a webhook.
#[derive(Args)]
pub(in crate::cli) struct KubeInject {
    /// File with manifests, - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    file: PathBuf,

    /// Write the manifests to this file, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    choices: Choices,
}

impl KubeInject {
    pub(in crate::cli) fn run(&self) -> Result<ExitCode> {
        let job = Job {
            action: Action::Inject(Box::new(self.choices.configuration()?)),
            namespace: &self.namespace,
            webhooks: None,
        };
        let files = job.run(input::read(std::slice::from_ref(&self.file))?);
        report::refuse_problems(&files)?;
        report::print_istioctl_results(&files);
        write_stream(self.output.as_deref(), &files)?;
        Ok(ExitCode::SUCCESS)
    }
}
