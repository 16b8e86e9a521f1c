//! The extent of a run.

/// The number and duration of measurements.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Whether it is the short run.
    pub is_quick: bool,
    /// The rounds of a workload.
    pub rounds: usize,
    /// The connections of a turn.
    pub connects: usize,
    /// The duration of the workload with connections in `TIME_WAIT` (60 s on Linux).
    pub sustained_seconds: usize,
    /// The duration of a turn on an open connection.
    pub turn_milliseconds: u64,
    /// The duration of a turn of HTTP.
    pub http_seconds: u64,
    /// The rounds of HTTP.
    pub http_rounds: usize,
    /// The attaches and detaches of a pod.
    pub attaches: usize,
    /// The pods that are attached at once.
    pub pods: u8,
    /// The starts of an agent.
    pub starts: usize,
    /// The CIDRs of a policy.
    pub cidrs: &'static [usize],
    /// The ports of a policy.
    pub ports: &'static [usize],
    /// The connections that are open at once.
    pub held: &'static [usize],
    /// The visited destinations.
    pub destinations: &'static [u32],
    /// The calls of `getsockopt(2)` in a turn.
    pub getsockopt_calls: u32,
    /// The duration of an agent with observers.
    pub observed_seconds: u32,
}

impl Scale {
    /// The run for the docs.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            is_quick: false,
            rounds: 60,
            connects: 300,
            sustained_seconds: 130,
            turn_milliseconds: 150,
            http_seconds: 2,
            http_rounds: 30,
            attaches: 20,
            pods: 250,
            starts: 3,
            cidrs: &[0, 100, 1_000, 10_000],
            ports: &[100, 1_000],
            held: &[1, 100, 1_000, 10_000],
            destinations: &[1, 1_000, 10_000, 100_000],
            getsockopt_calls: 20_000,
            observed_seconds: 60,
        }
    }

    /// For CI: some seconds for each workload.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            is_quick: true,
            rounds: 12,
            connects: 200,
            sustained_seconds: 10,
            turn_milliseconds: 60,
            http_seconds: 1,
            http_rounds: 3,
            attaches: 5,
            pods: 10,
            starts: 1,
            cidrs: &[0, 10_000],
            ports: &[1_000],
            held: &[1, 1_000],
            destinations: &[1, 1_000],
            getsockopt_calls: 5_000,
            observed_seconds: 5,
        }
    }

    /// The smallest run, which shows only that everything works.
    #[must_use]
    pub const fn smallest() -> Self {
        Self {
            rounds: 2,
            connects: 20,
            sustained_seconds: 2,
            turn_milliseconds: 10,
            attaches: 1,
            pods: 2,
            cidrs: &[0, 100],
            ports: &[10],
            held: &[1, 10],
            destinations: &[1, 10],
            getsockopt_calls: 100,
            ..Self::quick()
        }
    }
}
