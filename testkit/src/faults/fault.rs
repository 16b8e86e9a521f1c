//! Which call fails, and how.

use std::{collections::HashMap, fmt};

use super::call::Call;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The call itself fails, with an errno that it has at any time.
    Errno,
    /// The kernel responds to the netlink message with an error.
    Response,
}

/// One call of a process that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The call.
    pub call: Call,
    /// How many equal calls succeed before it.
    pub index: usize,
    /// How it fails.
    pub failure: Failure,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            index,
            failure,
        } = self;
        let how = match failure {
            Failure::Errno => "fails",
            Failure::Response => "gets an error as the response",
        };
        write!(f, "{call}, number {index}, {how}")
    }
}

/// The calls of one run without a fault, in their order.
#[derive(Clone, Debug, Default)]
pub struct Recorded(pub(super) Vec<Call>);

impl Recorded {
    /// The number of calls.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the process made no call that can fail.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults of all calls, in the order of the calls.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut counts: HashMap<&Call, usize> = HashMap::new();
        let mut faults = Vec::new();
        for call in &self.0 {
            let index = counts.entry(call).or_default();
            let fault = |failure| Fault {
                call: call.clone(),
                index: *index,
                failure,
            };
            faults.push(fault(Failure::Errno));
            faults.extend(call.is_message().then(|| fault(Failure::Response)));
            *index += 1;
        }
        faults
    }

    /// Of equal calls, the first.
    #[must_use]
    pub fn first_faults(&self) -> Vec<Fault> {
        let mut faults = self.faults();
        faults.retain(|fault| fault.index == 0);
        faults
    }
}
