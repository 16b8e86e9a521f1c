//! istio-iptables' flags that control a run, not what is captured.

use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{
    SettingError, duration, environment,
    flags::{self, CONTROLS, Values},
    numbers,
    source::Source,
};

const HEADING: &str = "Runtime options";

/// The flags as given.
#[derive(Clone, Debug, Default)]
pub(crate) struct ControlFlags {
    given: Values,
}

impl Args for ControlFlags {
    fn augment_args(command: Command) -> Command {
        flags::augment(command, &CONTROLS, HEADING)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ControlFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Values::read(matches, &CONTROLS);
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How capture is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validation {
    /// The destination port of test connections.
    pub port: u16,
    /// The time after which the validation fails.
    pub timeout: Duration,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Print,
    CleanUp,
    /// Attach, or wait until the pod is attached by another process.
    Apply {
        /// Verify capture afterwards.
        validate: bool,
    },
    /// Verify that the pod is captured.
    Validate,
    /// Do nothing: applying is skipped, and validation is not requested.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub task: Task,
    pub validation: Validation,
}

impl Control {
    /// Parses the flags, and for those that are not set the process's environment.
    pub(crate) fn from_flags(flags: &ControlFlags) -> Result<Self, SettingError> {
        Self::parse(&Source {
            flags: &flags.given,
            environment: &environment,
        })
    }

    fn parse(source: &Source<'_>) -> Result<Self, SettingError> {
        Ok(Self {
            task: task(source)?,
            validation: Validation {
                port: source.typed(&flags::PROBE_PORT, parse_port)?,
                timeout: source.typed(&flags::PROBE_TIMEOUT, duration::parse)?,
            },
        })
    }
}

fn task(source: &Source<'_>) -> Result<Task, SettingError> {
    let validate = source.switch(&flags::RUN_VALIDATION)?;
    let skip = source.switch(&flags::SKIP_RULE_APPLY)?;
    let clean_up = source.switch(&flags::CLEANUP_ONLY)?;
    if source.switch(&flags::DRY_RUN)? {
        return Ok(Task::Print);
    }
    Ok(match (skip, clean_up, validate) {
        (true, _, true) => Task::Validate,
        (true, _, false) => Task::Nothing,
        (false, true, _) => Task::CleanUp,
        (false, false, validate) => Task::Apply { validate },
    })
}

/// Go's `uint16`, without 0, to which no connection is possible.
fn parse_port(text: &str) -> Result<u16, String> {
    let number = numbers::parse_u32(text).ok();
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| "is not a port number from 1 to 65535".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ControlFlags,
    }

    fn control(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Control, SettingError> {
        let line = Line::try_parse_from(["istio-iptables"].iter().chain(arguments)).unwrap();
        Control::parse(&Source {
            flags: &line.flags.given,
            environment: &|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            },
        })
    }

    fn task(arguments: &[&str]) -> Task {
        control(arguments, &[]).unwrap().task
    }

    #[test]
    fn the_defaults_are_those_of_istio_iptables() {
        let control = control(&[], &[]).unwrap();
        assert_eq!(control.task, Task::Apply { validate: false });
        assert_eq!(control.validation.port, 15002);
        assert_eq!(control.validation.timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_dry_run_does_nothing_else() {
        assert_eq!(
            task(&["-n", "--cleanup-only", "--run-validation"]),
            Task::Print
        );
        assert_eq!(task(&["--cleanup-only", "--run-validation"]), Task::CleanUp);
        let skip = "--skip-rule-apply";
        assert_eq!(task(&[skip, "--run-validation"]), Task::Validate);
        assert_eq!(task(&[skip, "--cleanup-only"]), Task::Nothing);
        assert_eq!(
            task(&["--run-validation=T"]),
            Task::Apply { validate: true }
        );
    }

    #[test]
    fn invalid_variables_are_ignored_and_invalid_flags_are_errors() {
        let bad = [
            ("PROBE_TIMEOUT", "soon"),
            ("IPTABLES_PROBE_PORT", "99999"),
            ("RUN_VALIDATION", ""),
        ];
        assert_eq!(control(&[], &bad), control(&[], &[]));
        let good = [("PROBE_TIMEOUT", "2m"), ("IPTABLES_PROBE_PORT", "7")];
        let validation = control(&[], &good).unwrap().validation;
        assert_eq!(validation.port, 7);
        assert_eq!(validation.timeout, Duration::from_mins(2));
        // A value that starts with a dash is not a flag.
        let control_with = |arguments: &[&str]| control(arguments, &good).unwrap();
        let negative = control_with(&["--probe-timeout", "-1s"]).validation;
        assert_eq!(negative.timeout, Duration::ZERO);
        let cases = [
            ("--probe-timeout=soon", "--probe-timeout"),
            ("--iptables-probe-port=0", "1 to 65535"),
            ("--dry-run=perhaps", "true or false"),
        ];
        for (argument, word) in cases {
            let error = control(&[argument], &good).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(port in "\\PC{0,8}", timeout in "\\PC{0,8}") {
            let port = format!("--iptables-probe-port={port}");
            let timeout = format!("--probe-timeout={timeout}");
            let _control = control(&[&port, &timeout], &[]);
        }
    }
}
