//! `interceptor inject`, as a user calls it.

mod cli;
mod goldens;
mod istio;

use std::{
    path::Path,
    process::{Command, Output},
};

use interceptor_testkit::{command::output, interceptor::binary};

/// `interceptor` with these arguments.
fn interceptor(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// Runs `interceptor inject` with these arguments and this standard input.
fn inject_text(arguments: &[&str], input: &str) -> Output {
    let mut command = interceptor(&["inject"]);
    command.args(arguments);
    output(&mut command, input).unwrap()
}

fn inject(arguments: &[&str]) -> Output {
    inject_text(arguments, "")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
