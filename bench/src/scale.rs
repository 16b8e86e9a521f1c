//! How much is measured.

/// How long and how often.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Whether it is the short one.
    pub is_quick: bool,
    /// How many rounds a workload has.
    pub rounds: usize,
    /// How many connections are made in a turn.
    pub connects: usize,
    /// How long connections are made that wait in `TIME_WAIT` (60 s on Linux).
    pub sustained_seconds: usize,
    /// How long a turn on a kept connection takes.
    pub turn_milliseconds: u64,
    /// How long a turn of HTTP takes.
    pub http_seconds: u64,
    /// How many rounds of HTTP there are.
    pub http_rounds: usize,
    /// How often a pod is attached and detached.
    pub attaches: usize,
    /// How many pods are attached at once.
    pub pods: u8,
    /// How often an agent is started.
    pub starts: usize,
    /// How many CIDRs a policy has.
    pub cidrs: &'static [usize],
    /// How many ports a policy has.
    pub ports: &'static [usize],
    /// How many connections are open at once.
    pub held: &'static [usize],
    /// How many destinations are visited.
    pub destinations: &'static [u32],
    /// How often `getsockopt(2)` is called in a turn.
    pub getsockopt_calls: u32,
}

impl Scale {
    /// What goes into the docs.
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
        }
    }

    /// So little that it only shows that all works.
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
