//! Work on all processors.

use std::{num::NonZero, thread};

/// The results of `work` for each item, in the order of the items.
pub(super) fn in_parallel<'a, T: Sync, R: Send>(
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(threads).max(1);
    if items.len() <= share {
        return items.iter().map(work).collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let start =
            |items: &'a [T]| scope.spawn(move || items.iter().map(work).collect::<Vec<R>>());
        let parts: Vec<_> = items.chunks(share).map(start).collect();
        let join = |part: thread::ScopedJoinHandle<'_, Vec<R>>| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        parts.into_iter().flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        for length in [0, 1, 2, 7, 1000] {
            let items: Vec<usize> = (0..length).collect();
            let doubled = in_parallel(&items, |item| item * 2);
            assert!(doubled.into_iter().eq((0..length).map(|item| item * 2)));
        }
    }
}
