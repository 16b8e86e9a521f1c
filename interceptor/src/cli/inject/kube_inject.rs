//! `interceptor kube-inject`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser as _},
};

use super::{
    report,
    run::{Action, Job},
    write_stream,
};
use crate::{
    arguments::{dns_label, output_file, wrong_usage},
    cli::manifests,
    sidecar::Choices,
    stdio::message,
};

/// Add the sidecar to Kubernetes manifests, with the arguments of `istioctl kube-inject`
///
/// Injects every workload that is not in the host network and does not decline. Unlike istioctl, it
/// keeps the text of what does not change, writes nothing if one document has an error, and reads
/// the template from files or from the cluster's ConfigMaps, never from a webhook.
#[derive(Args)]
pub(in crate::cli) struct KubeInject {
    /// File with manifests, - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    file: PathBuf,

    /// Write the manifests to this file, not to standard output
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = PathBufValueParser::new().try_map(output_file)
    )]
    output: Option<PathBuf>,

    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default", value_parser = dns_label)]
    namespace: String,

    #[command(flatten)]
    choices: Choices,

    #[command(flatten)]
    ignored: Ignored,

    /// Not supported: render the operator's values first, and use --valuesFile and --meshConfigFile
    #[arg(long = "operatorFileName", value_name = "FILE", hide = true)]
    operator_file: Option<PathBuf>,
}

/// Arguments about the connection to istiod or to its webhook, which this command does not need.
#[derive(Args)]
struct Ignored {
    #[arg(long = "webhookConfig", hide = true)]
    webhook_config: Option<String>,
    #[arg(long, hide = true)]
    xds_address: Option<String>,
    #[arg(long, hide = true)]
    xds_label: Option<String>,
    #[arg(long, hide = true)]
    xds_port: Option<String>,
    #[arg(long, hide = true)]
    cert_dir: Option<String>,
    #[arg(long, hide = true)]
    authority: Option<String>,
    #[arg(long, hide = true)]
    timeout: Option<String>,
    #[arg(long, hide = true)]
    kubeclient_timeout: Option<String>,
    #[arg(long, hide = true)]
    insecure: bool,
    #[arg(long, hide = true)]
    plaintext: bool,
}

impl Ignored {
    fn names(&self) -> Vec<&'static str> {
        let given = [
            ("--webhookConfig", self.webhook_config.is_some()),
            ("--xds-address", self.xds_address.is_some()),
            ("--xds-label", self.xds_label.is_some()),
            ("--xds-port", self.xds_port.is_some()),
            ("--cert-dir", self.cert_dir.is_some()),
            ("--authority", self.authority.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--kubeclient-timeout", self.kubeclient_timeout.is_some()),
            ("--insecure", self.insecure),
            ("--plaintext", self.plaintext),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        given.map(|(name, _)| name).collect()
    }
}

impl KubeInject {
    pub(in crate::cli) fn run(&self) -> Result<ExitCode> {
        if self.operator_file.is_some() {
            return Err(wrong_usage(
                "--operatorFileName is not supported: render the operator's values, and use \
                 --injectConfigFile, --valuesFile and --meshConfigFile",
            ));
        }
        for name in self.ignored.names() {
            message!("interceptor: {name} has no effect: no webhook and no istiod is called");
        }
        let plan = self.choices.istioctl_plan();
        let job = Job {
            action: Action::Inject(Box::new(plan.load()?)),
            namespace: &self.namespace,
            webhooks: None,
        };
        let files = job.run(manifests::read(std::slice::from_ref(&self.file))?);
        report::refuse_problems(&files)?;
        write_stream(self.output.as_deref(), &files)?;
        report::print_istioctl_results(&files);
        report::print_assumption(&plan, &files);
        Ok(ExitCode::SUCCESS)
    }
}
