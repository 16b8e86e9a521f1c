//! Every bad input is refused with an error that names the input and the reason, and changes
//! nothing.

mod command_line;
mod environment;
mod host;
mod other_programs;
mod targets;

use std::process::{Command, Output};

use interceptor_testkit::{
    command::output,
    lab::{Lab, NOTHING, STOCK, Traces},
};

/// The exit code of a command line that the grammar does not allow.
const GRAMMAR: i32 = 2;
/// The exit code of everything else.
const FAILED: i32 = 1;

/// A pod that is not captured, and one that is: neither may be changed.
struct Subjects {
    free: Lab,
    captured: Lab,
    before: [Traces; 2],
}

impl Subjects {
    fn new() -> Self {
        let [free, captured] = [(), ()].map(|()| Lab::new().expect("a lab"));
        captured.attach(STOCK).expect("attached");
        let before = [&free, &captured].map(|lab| lab.traces().expect("traces"));
        Self {
            free,
            captured,
            before,
        }
    }

    fn both(&self) -> [&Lab; 2] {
        [&self.free, &self.captured]
    }

    /// The command of `make` for each of them must fail with `code`, print all of `words` in few
    /// lines, and change nothing.
    #[track_caller]
    fn refuse(&self, code: i32, words: &[&str], make: impl Fn(&Lab) -> Command) {
        for lab in self.both() {
            let mut command = make(lab);
            let output = output(&mut command, "").expect("a run");
            expect_refusal(&command, &output, code, words);
        }
        self.expect_unchanged();
    }

    /// Neither has been changed.
    #[track_caller]
    fn expect_unchanged(&self) {
        for (lab, before) in self.both().iter().zip(&self.before) {
            assert_eq!(lab.changes_since(before).expect("traces"), NOTHING);
        }
        assert_eq!(self.free.leftovers().expect("leftovers"), NOTHING);
    }
}

#[track_caller]
fn expect_refusal(command: &Command, output: &Output, code: i32, words: &[&str]) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {printed}");
    for word in words {
        assert!(
            printed.contains(word),
            "{command:?}: no {word:?} in: {printed}"
        );
    }
    assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
    assert!(printed.len() < 2000, "{command:?}: {printed}");
    assert!(!printed.contains("panicked"), "{command:?}: {printed}");
}
