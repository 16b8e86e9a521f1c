//! `interceptor inject`, as a user calls it.

mod cli;
mod goldens;
mod istio;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use interceptor_testkit::interceptor::binary;

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
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = pipes.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // The command reads everything before it writes.
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    process.wait_with_output().unwrap()
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
