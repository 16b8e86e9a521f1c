//! What the console of a virtual machine shows.

/// The result of a guest's command.
pub(super) struct Outcome {
    pub(super) exit_code: i32,
    /// The output on the console.
    pub(super) output: String,
}

impl Outcome {
    /// The kernel's version, and that of Debian's package, from `uname -a`.
    pub(super) fn version(&self) -> String {
        let line = self.lines().find_map(|line| line.strip_prefix("Linux "));
        let words: Vec<_> = line.unwrap_or_default().split(' ').collect();
        // "NODE RELEASE #1 … Debian VERSION (DATE) …"
        let after = |word| words.iter().skip_while(move |next| **next != word).nth(1);
        let release = words.get(1).copied().unwrap_or("unknown");
        let package = after("Debian").copied().unwrap_or("unknown");
        format!("{release} (Debian {package})")
    }

    /// The instructions that the verifier processed, by program.
    pub(super) fn verified(&self) -> Vec<(&str, u32)> {
        self.lines()
            .filter_map(|line| line.strip_prefix("verified: "))
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?.parse().ok()?))
            })
            .collect()
    }

    /// The names of the tests with this result: `ok`, `FAILED`.
    pub(super) fn tests(&self, result: &str) -> Vec<&str> {
        self.lines()
            .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
            .filter(|(_, its)| *its == result)
            .map(|(name, _)| name)
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.output.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
Linux (none) 6.1.0-50-cloud-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02) x86_64 GNU/Linux
verified: icept_connect4   175505 instructions of 1000000
verified: icept_name4         306 instructions of 1000000 WARNING: near the limit
running 3 tests
test isolation::a ... ok
test isolation::b has been running for over 60 seconds
test isolation::b ... FAILED
test result: FAILED. 1 passed; 1 failed
";

    #[test]
    fn results_are_read_from_the_console() {
        let outcome = Outcome {
            exit_code: 1,
            output: CONSOLE.to_owned(),
        };
        assert_eq!(outcome.version(), "6.1.0-50-cloud-amd64 (Debian 6.1.176-1)");
        assert_eq!(
            outcome.verified(),
            [("icept_connect4", 175_505), ("icept_name4", 306)]
        );
        assert_eq!(outcome.tests("ok"), ["isolation::a"]);
        assert_eq!(outcome.tests("FAILED"), ["isolation::b"]);
    }
}
