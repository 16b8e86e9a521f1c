//! `cargo xtask soak`: keeps connections open and opens new ones through real proxies, while everything
//! around them changes; see docs/soak.md.

mod agents;
mod disturbances;
mod growth;
mod isolation;
mod ledger;
mod outside;
mod pods;
mod random;
mod report;
mod run;
mod samples;
mod traffic;
mod visitors;

use std::{env, fs::File, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use interceptor_testkit::{
    interruption::{catch_interruptions, was_interrupted},
    random::fresh_seed,
};

/// A shell's exit code for a program that SIGINT terminated.
const INTERRUPTED: u8 = 130;
/// The exit code of a run that could not be completed.
const INCOMPLETE: u8 = 2;

/// Keeps connections open and opens new ones, through a real Envoy and the small proxy, while settings
/// change, agents are killed, upgraded and downgraded, pods come and go, the API server fails, routes
/// change and tables are nearly full.
///
/// Exit code: 0 without a violation; 1 with one, each of which is printed; 2 if the run could not be
/// completed; 130 if it was interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask soak")]
struct Options {
    /// Duration, without the time in which the connections are opened
    #[arg(long, value_name = "N")]
    minutes: f64,

    /// The number of connections that stay open
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    connections: usize,

    /// Determines the order of everything that happens; default: a new one, which is printed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Also write the report to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [first, job] = arguments.as_slice()
        && first == traffic::WORKER
    {
        return of_worker(traffic::run(job));
    }
    match soak(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(_) if was_interrupted() => {
            eprintln!("soak: interrupted; everything is cleaned up");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(INCOMPLETE)
        }
    }
}

fn of_worker(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: a process of the traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of violations.
fn soak(options: &Options) -> Result<usize> {
    ensure!(
        options.minutes > 0.0 && options.minutes <= 10_080.0,
        "--minutes {}: give a number above 0, at most 10080 (a week)",
        options.minutes
    );
    isolation::enter()?;
    isolation::raise_open_files(options.connections)?;
    catch_interruptions()?;
    let plan = run::Plan {
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        connections: options.connections,
        seed: options.seed.map_or_else(fresh_seed, Ok)?,
    };
    // First: a file that cannot be written ends a long run before it starts.
    let file = options.report.as_deref().map(|path| {
        let shown = path.display();
        File::create(path).with_context(|| format!("--report {shown}: cannot create this file"))
    });
    let file = file.transpose()?;
    let report = run::run(&plan)?;
    println!("{report}");
    if let Some(mut file) = file {
        write!(file, "{report}").context("--report: cannot write the report")?;
    }
    Ok(report.violations())
}

/// Waits again, for as long as a machine with a high load may need: the waits of the fixtures are those of
/// tests. A wait for a process that has exited fails at once each time.
fn patiently<T>(wait: &mut dyn FnMut() -> Result<T>) -> Result<T> {
    const WAITS: u32 = 15;
    let mut waited = wait();
    for _ in 1..WAITS {
        if waited.is_ok() || was_interrupted() {
            break;
        }
        waited = wait();
    }
    waited
}
