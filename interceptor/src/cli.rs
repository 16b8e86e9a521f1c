//! The command line: one file per command.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    cni::PLUGIN,
    exec::{cleanup as exec_cleanup, inside as exec_inside},
    stdio::message,
};

mod agent;
mod attach;
mod bug_report;
mod check;
mod check_inject;
mod cni;
mod completions;
mod detach;
mod dry_run;
mod exec;
mod explain;
mod inject;
mod istio_iptables;
mod kubectl;
mod labels;
mod log;
mod manifests;
mod observe;
mod output;
mod pod_ref;
mod run;
mod status;
mod top;
mod uninstall;
mod webhook;

/// Redirects a pod's traffic to its sidecar proxy with eBPF, by the rules of istio-iptables.
///
/// Outbound TCP goes to the proxy's port 15001, inbound TCP to port 15006. The proxy's own traffic
/// is not redirected. Commands name a pod by its network namespace, or by its name if the node agent has
/// captured it.
#[derive(Parser)]
#[command(name = "interceptor", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong command line, 3 (status, check-inject) a pod has a warning, 126 (istio-iptables) validation failed; exec has that of its command, inject --diff that of diff. They stay the same if a reader closes its pipe early (`| head`)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Agent(Box<agent::Agent>),
    Attach(attach::Attach),
    Run(run::Run),
    Exec(Box<exec::Exec>),
    Detach(detach::Detach),
    Status(status::Status),
    Explain(explain::Explain),
    Observe(Box<observe::Observe>),
    Top(top::Top),
    Kubectl(Box<kubectl::Kubectl>),
    Check(check::Check),
    BugReport(bug_report::BugReport),
    Inject(Box<inject::Inject>),
    KubeInject(Box<inject::KubeInject>),
    CheckInject(Box<check_inject::CheckInject>),
    #[command(alias = "interceptor-cni")]
    Cni(cni::Cni),
    IstioIptables(istio_iptables::IstioIptables),
    Uninstall(uninstall::Uninstall),
    Webhook(Box<webhook::Webhook>),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(completions::Man),
    #[command(hide = true, name = exec_inside::COMMAND)]
    ExecInside(exec::Inside),
    #[command(hide = true, name = exec_cleanup::COMMAND)]
    ExecCleanup(exec::Cleanup),
    #[command(hide = true)]
    IstioCleanIptables(istio_iptables::IstioCleanIptables),
}

/// Names of the binary that select a command. (Called as `pilot-agent`, it has the command's name as an
/// argument.)
const NAMES: [&str; 3] = ["istio-iptables", "istio-clean-iptables", PLUGIN];

/// The arguments, with the command that the binary's own name selects.
fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name);
    if let Some(name) = NAMES
        .iter()
        .find(|name| called.is_some_and(|called| called == **name))
    {
        arguments.insert(1, name.into());
    }
    arguments
}

/// Exit code of a wrong command line, as of clap.
const WRONG_USAGE: u8 = 2;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = if is_kubectl_plugin(env::args_os().next().as_deref()) {
        let plugin = kubectl::Plugin::parse();
        log::init_from_environment();
        plugin.kubectl.run()
    } else {
        let cli = Cli::parse_from(command_line(env::args_os()));
        init_log(&cli.command).and_then(|()| run(&cli))
    };
    match result {
        Ok(code) => code,
        Err(error) => print_error(&error),
    }
}

/// Whether the binary is called by the name by which kubectl finds its plugins.
fn is_kubectl_plugin(called: Option<&OsStr>) -> bool {
    let called = called.map(Path::new);
    called.and_then(Path::file_name) == Some(kubectl::PLUGIN.as_ref())
}

/// Prints why a command failed. Returns its exit code.
fn print_error(error: &anyhow::Error) -> ExitCode {
    if let Some(wrong_usage) = error.downcast_ref::<clap::Error>() {
        message!("{}", wrong_usage.to_string().trim_end());
        return ExitCode::from(WRONG_USAGE);
    }
    message!("interceptor: {error:#}");
    ExitCode::FAILURE
}

fn init_log(command: &Command) -> Result<()> {
    match command {
        Command::Agent(agent) => return agent.log(),
        Command::Webhook(webhook) => return webhook.log(),
        _ => {}
    }
    log::init_from_environment();
    Ok(())
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Agent(agent) => agent.run().map(|()| ExitCode::SUCCESS),
        Command::Attach(attach) => attach.run().map(|()| ExitCode::SUCCESS),
        Command::Run(run) => run.run().map(|()| ExitCode::SUCCESS),
        Command::Exec(exec) => Ok(exec.run()),
        Command::Detach(detach) => detach.run().map(|()| ExitCode::SUCCESS),
        Command::Status(status) => status.run(),
        Command::Explain(explain) => explain.run().map(|()| ExitCode::SUCCESS),
        Command::Observe(observe) => observe.run().map(|()| ExitCode::SUCCESS),
        Command::Top(top) => top.run().map(|()| ExitCode::SUCCESS),
        Command::Kubectl(kubectl) => kubectl.run(),
        Command::Check(check) => check.run(),
        Command::BugReport(report) => report.run().map(|()| ExitCode::SUCCESS),
        Command::Inject(inject) => inject.run(),
        Command::KubeInject(inject) => inject.run(),
        Command::CheckInject(check) => check.run(),
        Command::Cni(cni) => Ok(cni.run()),
        Command::IstioIptables(command) => command.run(),
        Command::Uninstall(uninstall) => uninstall.run().map(|()| ExitCode::SUCCESS),
        Command::Webhook(webhook) => webhook.run().map(|()| ExitCode::SUCCESS),
        Command::Completions(completions) => {
            completions.run(Cli::command()).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(man) => man.run(Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::ExecInside(inside) => inside.run(),
        Command::ExecCleanup(cleanup) => cleanup.run().map(|()| ExitCode::SUCCESS),
        Command::IstioCleanIptables(_) => istio_iptables::refuse_clean(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(arguments: &[&str]) -> Command {
        let arguments = arguments.iter().map(OsString::from);
        Cli::try_parse_from(command_line(arguments))
            .unwrap()
            .command
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
        kubectl::Plugin::command().debug_assert();
    }

    #[test]
    fn the_name_is_a_command() {
        for start in [
            &["/usr/local/bin/istio-iptables"][..],
            &["pilot-agent", "istio-iptables"],
            &["interceptor", "istio-iptables"],
        ] {
            let arguments = [start, &["-b", "*", "-n", "-b", "80", "--run-validation"]].concat();
            assert!(matches!(called(&arguments), Command::IstioIptables(_)));
        }
        let clean = called(&["istio-clean-iptables", "--anything", "-h"]);
        assert!(matches!(clean, Command::IstioCleanIptables(_)));
        let plugin = called(&["/opt/cni/bin/interceptor-cni"]);
        assert!(matches!(plugin, Command::Cni(_)));
    }
}
