//! The project's tasks, run as `cargo xtask <task>`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod alerts;
mod apt;
mod architecture;
mod bench;
mod bpf_linker;
mod build;
mod build_ebpf;
mod cargo_tool;
mod command;
mod contents;
mod cross;
mod cycles;
mod demo;
mod deny;
mod dev;
mod dist;
mod docs;
mod documents;
mod envoy;
mod fmt;
mod fuzz;
mod helm;
mod image;
mod kubectl;
mod links;
mod lint;
mod man;
mod paths;
mod pip;
mod python_tool;
mod soak;
mod source;
mod tarball;
mod test;
mod texts;
mod toolchain;
mod unsafe_code;
mod vm;
mod words;

/// The command line.
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
        /// First build the binary whose maps have a different layout, which upgrade tests need
        #[arg(long)]
        other_layout: bool,
    },
    /// Write the manual pages of the interceptor binary into target/man
    Man,
    /// Write the documentation site into target/book
    Docs,
    /// Write the Prometheus operator's alert rules, and the chart's copies, from deploy/monitoring
    Alerts,
    /// Build a static binary and an OCI image archive with it; requires no container engine
    Image(image::Image),
    /// Build everything that a release distributes: static binaries and an image for both architectures, chart,
    /// manifests, bills of materials and checksums. See RELEASING.md
    Dist(dist::Options),
    /// Build, attach to a pod and print its verdicts until Ctrl-C; requires root
    Dev(dev::Options),
    /// Format the Rust and TOML files
    Fmt,
    /// Check the sources without running them
    Lint {
        /// Run only these checks
        steps: Vec<lint::Step>,
    },
    /// Print every help page, Event, error, log line and other text of the product
    Texts {
        /// Leave out the help pages, which require a build
        #[arg(long)]
        no_help: bool,
    },
    /// Install what the tests need, and run all tests; requires root
    Test {
        /// Arguments for `cargo test`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure the cost of interception, compared with none and with iptables; requires root.
    /// With --injection: the speed of sidecar injection
    Bench {
        #[command(flatten)]
        options: bench::Options,
    },
    /// Show a captured pod and its connections; requires root
    Demo {
        /// The proxy that receives the connections
        #[arg(long, value_enum, default_value = "builtin")]
        proxy: demo::Proxy,
        /// Show the node agent instead: pods start, the agent is killed and upgraded
        #[arg(long, conflicts_with = "proxy")]
        agent: bool,
        /// Show the injection of sidecars instead: from a plain manifest to captured traffic
        #[arg(long, conflicts_with_all = ["proxy", "agent"])]
        inject: bool,
    },
    /// Keep connections open and open new ones for a long time, while agents are killed and upgraded, pods
    /// come and go, settings and routes change and the API server fails; requires root. See docs/soak.md
    Soak(soak::Options),
    /// Feed mutated inputs to the parsers of untrusted input, and check their properties. See
    /// docs/fuzzing.md
    Fuzz(fuzz::Options),
    /// Run tests on other kernels, in virtual machines
    TestVm(vm::Options),
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
        Task::Man => man::run(),
        Task::Docs => docs::run(),
        Task::Alerts => alerts::run(),
        Task::Image(image) => image::run(&image),
        Task::Dist(options) => dist::run(&options),
        Task::Dev(options) => dev::run(&options),
        Task::Fmt => fmt::apply(),
        Task::Lint { steps } => lint::run(&steps),
        Task::Texts { no_help } => texts::run(!no_help),
        Task::Test { arguments } => test::run(&arguments),
        Task::Bench { options } => bench::run(&options),
        Task::Demo { agent: true, .. } => demo::run(demo::What::Agent),
        Task::Demo { inject: true, .. } => demo::run(demo::What::Injection),
        Task::Demo { proxy, .. } => demo::run(demo::What::Pod(proxy)),
        Task::Soak(options) => soak::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::TestVm(options) => vm::run(&options),
    }
}
