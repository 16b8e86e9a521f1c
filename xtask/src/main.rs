//! The project's tasks, run as `cargo xtask <task>`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod bpf_linker;
mod build;
mod build_ebpf;
mod command;
mod demo;
mod deny;
mod envoy;
mod fmt;
mod image;
mod kubectl;
mod lint;
mod paths;
mod pip;
mod test;
mod toolchain;
mod vm;

/// What the command line says.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Interceptor's build, lint and test tasks"
)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the BPF programs into target/ebpf/interceptor.o, for the interceptor crate to embed
    BuildEbpf,
    /// Compile the BPF programs, then the interceptor binary with them inside
    Build {
        /// Before that, the one with another layout of its maps, which tests of upgrades meet
        #[arg(long)]
        other_layout: bool,
    },
    /// Build a static binary, and an OCI image of it as one archive; takes no container engine
    Image(image::Image),
    /// Format the sources
    Fmt,
    /// Check format, lints (host and BPF), documentation and dependencies
    Lint,
    /// Install what the tests need, and run them all; needs root
    Test {
        /// Arguments for `cargo test`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure what interception costs, against none and against iptables; needs root
    Bench {
        #[command(flatten)]
        options: bench::Options,
    },
    /// Show an intercepted pod at work; needs root
    Demo {
        /// Where the connections go
        #[arg(long, value_enum, default_value = "builtin")]
        proxy: demo::Proxy,
        /// Show the node agent instead: pods appear, the agent is killed and upgraded
        #[arg(long, conflicts_with = "proxy")]
        agent: bool,
    },
    /// Test on other kernels, in emulated machines
    TestVm {
        /// Only on this kernel; may be repeated
        #[arg(long, value_parser = vm::parse_kernel)]
        kernel: Vec<&'static vm::Kernel>,
        /// A command to run there in place of the test
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Options::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::BuildEbpf => build_ebpf::run(),
        Task::Build { other_layout } => {
            if other_layout {
                build::other_layout()?;
            }
            build::run().map(drop)
        }
        Task::Image(image) => image::run(&image),
        Task::Fmt => fmt::apply(),
        Task::Lint => lint::run(),
        Task::Test { arguments } => test::run(&arguments),
        Task::Bench { options } => bench::run(&options),
        Task::Demo { agent: true, .. } => demo::run(demo::What::Agent),
        Task::Demo { proxy, .. } => demo::run(demo::What::Pod(proxy)),
        Task::TestVm { kernel, command } => vm::run(kernel, &command),
    }
}
