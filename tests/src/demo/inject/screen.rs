//! The screen: numbered steps, and what each of them shows.

use std::time::Instant;

use anyhow::{Error, Result};
use interceptor_testkit::interruption::ensure_uninterrupted;

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[1;31m";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

const INDENT: &str = "    ";
/// Columns of the screen.
const WIDTH: usize = 100;

pub(crate) struct Screen {
    is_colored: bool,
    width: usize,
    steps: usize,
    start: Instant,
}

impl Screen {
    pub(crate) fn new(is_colored: bool) -> Self {
        Self {
            is_colored,
            width: WIDTH,
            steps: 0,
            start: Instant::now(),
        }
    }

    /// Starts a step, unless the demo was interrupted: what was before it has succeeded.
    pub(crate) fn step(&mut self, what: &str) -> Result<()> {
        ensure_uninterrupted()?;
        self.steps += 1;
        let number = self.steps;
        println!("{}", self.colored(BOLD, &format!("{number:>2}  {what}")));
        Ok(())
    }

    /// Shows a result of the step.
    pub(crate) fn line(&self, text: &str) {
        println!("{}", self.shortened(&format!("{INDENT}{text}")));
    }

    /// Shows an added line of a difference.
    pub(crate) fn added(&self, line: &str) {
        let line = self.shortened(&format!("{INDENT}+{line}"));
        println!("{}", self.colored(GREEN, &line));
    }

    /// Shows a long text in several lines.
    pub(crate) fn wrapped(&self, text: &str) {
        let mut line = INDENT.to_owned();
        for word in text.split_whitespace() {
            if line.len() + 1 + word.len() > self.width {
                println!("{line}");
                INDENT.clone_into(&mut line);
            }
            if line.len() > INDENT.len() {
                line.push(' ');
            }
            line += word;
        }
        println!("{line}");
    }

    /// Shows that the current step has failed.
    pub(crate) fn fail(&self, error: &Error) {
        let text = format!("FAILED: step {}: {error:#}", self.steps);
        println!("{}", self.colored(RED, &text));
    }

    /// Shows that all steps have succeeded.
    pub(crate) fn summary(&self) {
        let (steps, seconds) = (self.steps, self.start.elapsed().as_secs());
        let text = format!("all {steps} steps as expected, in {seconds} s");
        println!("{}", self.colored(GREEN, &text));
    }

    fn colored(&self, color: &str, text: &str) -> String {
        if self.is_colored {
            format!("{color}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }

    /// The start of a line that is longer than the screen is wide.
    fn shortened(&self, line: &str) -> String {
        if line.chars().count() <= self.width {
            return line.to_owned();
        }
        let start: String = line.chars().take(self.width - 1).collect();
        format!("{start}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_ends_at_the_edge() {
        let screen = Screen::new(false);
        let short = "x".repeat(WIDTH);
        assert_eq!(screen.shortened(&short), short);
        let cut = screen.shortened(&"x".repeat(WIDTH + 1));
        assert_eq!(cut.chars().count(), WIDTH);
        assert!(cut.ends_with('…'));
    }
}
