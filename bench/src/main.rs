//! The benchmark: `cargo xtask bench` builds and runs it. With `--load`: one of its load processes.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};
use interceptor_bench::{self as bench, LOAD, Options, Scale, Workload, injection};

#[derive(Parser)]
struct Arguments {
    /// Where the results go
    #[arg(short, long)]
    output: PathBuf,
    /// Short and rough
    #[arg(long)]
    quick: bool,
    /// Measure sidecar injection instead
    #[arg(long, conflicts_with = "only")]
    injection: bool,
    /// Only these workloads
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
}

fn main() -> Result<()> {
    if env::args().nth(1).as_deref() == Some(LOAD) {
        return bench::load(
            &env::args()
                .nth(2)
                .context("expected the configuration as JSON")?,
        );
    }
    let arguments = Arguments::parse();
    if arguments.injection {
        return inject(&arguments);
    }
    let options = Options {
        scale: if arguments.quick {
            Scale::quick()
        } else {
            Scale::full()
        },
        workloads: if arguments.only.is_empty() {
            Workload::value_variants().to_vec()
        } else {
            arguments.only
        },
    };
    let results = bench::run(&options, |results| bench::write(results, &arguments.output))?;
    println!("{}", bench::verdicts(&results));
    println!("{}", arguments.output.join("README.md").display());
    Ok(())
}

fn inject(arguments: &Arguments) -> Result<()> {
    let scale = if arguments.quick {
        injection::Scale::quick()
    } else {
        injection::Scale::full()
    };
    let results = injection::run(&scale)?;
    injection::write(&results, &arguments.output)?;
    println!("{}", injection::verdicts(&results));
    println!("{}", arguments.output.join("README.md").display());
    Ok(())
}
