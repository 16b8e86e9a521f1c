//! Errors in the specification's format: JSON on standard output.

use std::fmt;

use serde_json::json;

/// Error codes: the specification's, and our own from 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An unsupported version of the specification.
    Version = 1,
    /// Missing or invalid variables.
    Environment = 4,
    /// Input that is not JSON.
    Decode = 6,
    /// An invalid configuration.
    Conf = 7,
    /// A temporary failure.
    TryAgain = 11,
    /// The agent cannot capture the pod.
    NotCaptured = 100,
    /// CHECK: the pod is not captured, or has other settings.
    CheckFailed = 101,
}

/// The error of a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// The kind of failure.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// Why, and what to do.
    pub details: String,
}

impl CniError {
    /// Creates an error.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }

    /// The error as JSON for a runtime of this `version`.
    #[must_use]
    pub fn to_json(&self, version: &str) -> String {
        let Self {
            code,
            message,
            details,
        } = self;
        json!({
            "cniVersion": version,
            "code": *code as u32,
            "msg": message,
            "details": details,
        })
        .to_string()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_format_of_the_specification() {
        let error = CniError::new(Code::TryAgain, "no agent", "start \"it\"");
        assert_eq!(
            error.to_json("0.4.0"),
            r#"{"cniVersion":"0.4.0","code":11,"msg":"no agent","details":"start \"it\""}"#
        );
    }
}
