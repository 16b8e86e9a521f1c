//! The traffic: processes that connect, and processes that accept. Every exchange of a connection
//! proves whom it reached, and its content is checked in both directions.

mod client;
mod exchange;
mod protocol;
mod server;
mod worker;

use anyhow::Result;
pub(crate) use exchange::Identity;
pub(crate) use protocol::{ConnectPlan, Expected, Fault, Job, Kind, Progress, ServePlan, Via};
pub(crate) use worker::{Output, WORKER, Worker};

/// The main function of a process of the traffic; `job` is its command line.
pub(crate) fn run(job: &str) -> Result<()> {
    match serde_json::from_str(job)? {
        Job::Connect(plan) => client::run(plan),
        Job::Serve(plan) => server::run(&plan),
    }
}
