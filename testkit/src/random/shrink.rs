//! Simplifying a failing case.

use proptest::strategy::ValueTree;

/// The maximum number of attempts.
const ENOUGH: usize = 100;

/// Simplifies the case while it still fails.
pub fn shrink<T: ValueTree>(tree: &mut T, mut fails: impl FnMut(&T::Value) -> bool) -> T::Value {
    let mut simplest = tree.current();
    let mut progressed = tree.simplify();
    for _ in 0..ENOUGH {
        if !progressed {
            break;
        }
        let simpler = tree.current();
        progressed = if fails(&simpler) {
            simplest = simpler;
            tree.simplify()
        } else {
            tree.complicate()
        };
    }
    simplest
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;
    use crate::random::runner;

    #[test]
    fn a_failing_case_is_simplified() {
        let strategy = (0_u32..1000, 0_u32..1000);
        let mut tree = (0..100)
            .filter_map(|index| strategy.new_tree(&mut runner(1, index)).ok())
            .find(|tree| tree.current().1 > 200)
            .unwrap();
        assert_eq!(shrink(&mut tree, |(_, second)| *second >= 17), (0, 17));
    }
}
