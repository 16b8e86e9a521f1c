//! Errors as the specification wants them: JSON on standard output.

use std::fmt;

use serde_json::json;

/// The specification's codes, and from 100 on our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A version of the specification that we do not speak.
    Version = 1,
    /// Variables are missing or wrong.
    Environment = 4,
    /// What cannot be decoded.
    Decode = 6,
    /// The configuration is wrong.
    Conf = 7,
    /// It may work later.
    TryAgain = 11,
    /// The agent cannot capture the pod.
    NotCaptured = 100,
    /// CHECK: the pod is not captured as it should be.
    CheckFailed = 101,
}

/// Why a verb fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// What kind of failure.
    pub code: Code,
    /// In short.
    pub message: String,
    /// Why, and what to do.
    pub details: String,
}

impl CniError {
    /// An error.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }

    /// As a runtime of `version` reads it.
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
    fn an_error_is_the_json_of_the_specification() {
        let error = CniError::new(Code::TryAgain, "no agent", "start \"it\"");
        assert_eq!(
            error.to_json("0.4.0"),
            r#"{"cniVersion":"0.4.0","code":11,"msg":"no agent","details":"start \"it\""}"#
        );
    }
}
