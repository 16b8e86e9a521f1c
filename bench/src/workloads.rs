//! The workloads.

mod acceleration;
mod attaching;
mod crowd;
mod getsockopt;
mod growing;
mod hooks;
mod http;
mod memory;
mod observing;
mod policy;
mod processor;
mod setup;
mod starting;
mod strict;
mod sustained;
mod talk;

use anyhow::Result;
use clap::ValueEnum;

use super::{Scale, Section};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Attaching a pod. (First: the first attach loads programs.)
    Attaching,
    /// Attaching many pods.
    Growing,
    /// Starting an agent.
    Starting,
    /// Setting up connections.
    Setup,
    /// Setting up connections for longer than `TIME_WAIT` lasts.
    Sustained,
    /// More connections at once than there are ephemeral ports.
    Crowd,
    /// Requests and bulk data on an open connection.
    Talk,
    /// HTTP through Envoy.
    Http,
    /// CPU time.
    Processor,
    /// The run time of the programs.
    Hooks,
    /// Strict mode.
    Strict,
    /// The cost of an observer.
    Observing,
    /// Policies with many CIDRs and ports.
    Policy,
    /// Memory.
    Memory,
    /// `getsockopt(2)`.
    Getsockopt,
    /// Socket acceleration, which Interceptor does not have.
    Acceleration,
}

impl Workload {
    /// All, in the order in which they run.
    pub const ALL: [Self; 16] = [
        Self::Attaching,
        Self::Growing,
        Self::Starting,
        Self::Setup,
        Self::Sustained,
        Self::Crowd,
        Self::Talk,
        Self::Http,
        Self::Processor,
        Self::Hooks,
        Self::Strict,
        Self::Observing,
        Self::Policy,
        Self::Memory,
        Self::Getsockopt,
        Self::Acceleration,
    ];

    /// The heading of its section.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Attaching => "Attaching a pod",
            Self::Growing => "Attaching many pods",
            Self::Starting => "Starting an agent",
            Self::Setup => "Setting up connections",
            Self::Sustained => "Setting up connections, for longer than TIME_WAIT",
            Self::Crowd => "More connections at once than ephemeral ports",
            Self::Talk => "Requests and bulk data on an open connection",
            Self::Http => "HTTP through Envoy",
            Self::Processor => "Processor time",
            Self::Hooks => "Time in the programs",
            Self::Strict => "Strict mode",
            Self::Observing => "Observing",
            Self::Policy => "Policies of many CIDRs and ports",
            Self::Memory => "Memory",
            Self::Getsockopt => "getsockopt",
            Self::Acceleration => "Socket acceleration",
        }
    }

    /// Runs it.
    pub(super) fn run(self, scale: &Scale) -> Result<Section> {
        let section = match self {
            Self::Attaching => attaching::run(scale),
            Self::Growing => growing::run(scale),
            Self::Starting => starting::run(scale),
            Self::Setup => setup::run(scale),
            Self::Sustained => sustained::run(scale),
            Self::Crowd => crowd::run(),
            Self::Talk => talk::run(scale),
            Self::Http => http::run(scale),
            Self::Processor => processor::run(scale),
            Self::Hooks => hooks::run(scale),
            Self::Strict => strict::run(scale),
            Self::Observing => observing::run(scale),
            Self::Policy => policy::run(scale),
            Self::Memory => memory::run(scale),
            Self::Getsockopt => getsockopt::run(scale),
            Self::Acceleration => acceleration::run(scale),
        }?;
        Ok(Section {
            title: self.title().to_owned(),
            ..section
        })
    }
}
