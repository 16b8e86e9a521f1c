//! When to delete what is kept for deleted network namespaces.
//!
//! The kernel does not report the deletion of a network namespace, and delays it while connections are
//! still being closed. So each request is followed by several sweeps.

use std::time::Duration;

use tokio::time::Instant;

/// Delays between a request and its sweeps. The kernel deletes a network namespace usually at once, at the
/// latest when TCP stops retransmitting an unacknowledged last segment.
const DELAYS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(12),
    Duration::from_secs(72),
    Duration::from_secs(312),
];

/// The sweeps that are due. Requests share them: however many pods are deleted, there is at most one sweep
/// of each delay at a time.
#[derive(Default)]
pub(in crate::agent) struct Sweeps {
    last_request: Option<Instant>,
    due: [Option<Instant>; DELAYS.len()],
}

impl Sweeps {
    /// A network namespace was deleted, or is going to be.
    pub(in crate::agent) fn request(&mut self, now: Instant) {
        self.last_request = Some(now);
        for (due, delay) in self.due.iter_mut().zip(DELAYS) {
            due.get_or_insert(now + delay);
        }
    }

    /// When the next sweep is due.
    pub(in crate::agent) fn next(&self) -> Option<Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// A sweep has ended. What was requested while a sweep was due gets one with the same delay, too.
    pub(in crate::agent) fn complete(&mut self, now: Instant) {
        for (due, delay) in self.due.iter_mut().zip(DELAYS) {
            if due.is_some_and(|due| due <= now) {
                let due_again = self.last_request.map(|last| last + delay);
                *due = due_again.filter(|due| *due > now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of all sweeps, in seconds, for requests at these seconds.
    fn sweeps(requests: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let mut sweeps = Sweeps::default();
        let mut requests = requests
            .iter()
            .map(|at| start + Duration::from_secs(*at))
            .peekable();
        let mut times = Vec::new();
        loop {
            let next = sweeps.next();
            if let Some(request) = requests.next_if(|at| next.is_none_or(|next| *at < next)) {
                sweeps.request(request);
            } else if let Some(next) = next {
                sweeps.complete(next);
                times.push((next - start).as_secs());
            } else {
                return times;
            }
        }
    }

    #[test]
    fn a_request_is_followed_by_each_sweep() {
        assert!(sweeps(&[]).is_empty());
        assert_eq!(sweeps(&[0]), [2, 12, 72, 312]);
        assert_eq!(sweeps(&[0, 1000]), [2, 12, 72, 312, 1002, 1012, 1072, 1312]);
    }

    #[test]
    fn a_later_request_does_not_wait_for_the_sweeps_of_an_earlier_one() {
        assert_eq!(sweeps(&[0, 100]), [2, 12, 72, 102, 112, 172, 312, 412]);
    }

    #[test]
    fn requests_share_sweeps() {
        assert_eq!(sweeps(&[0, 1]), [2, 3, 12, 13, 72, 73, 312, 313]);
        let each_second: Vec<_> = (0..600).collect();
        let times = sweeps(&each_second);
        assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
        assert_eq!(times.last(), Some(&911));
    }
}
