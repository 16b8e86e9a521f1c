//! Versions of the specification.

use serde::Deserialize;
use serde_json::json;

use super::error::{CniError, Code};

/// Those that we speak: all in which plugins are chained. What is passed on is the same in all.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest that we speak.
pub const NEWEST: &str = SUPPORTED[SUPPORTED.len() - 1];

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "cniVersion")]
    version: String,
}

/// The version that the configuration is of, or else the newest.
#[must_use]
pub fn of_input(input: &[u8]) -> String {
    serde_json::from_slice(input).map_or_else(|_| NEWEST.to_owned(), |conf: Version| conf.version)
}

/// Makes sure that we speak it.
pub fn check(version: &str) -> Result<(), CniError> {
    if SUPPORTED.contains(&version) {
        return Ok(());
    }
    Err(CniError::new(
        Code::Version,
        format!("CNI version {version:?} is not supported"),
        format!("interceptor-cni supports {}", SUPPORTED.join(", ")),
    ))
}

/// The answer to VERSION.
#[must_use]
pub fn answer(input: &[u8]) -> String {
    let answer = json!({ "cniVersion": of_input(input), "supportedVersions": SUPPORTED });
    answer.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_answered_in_the_version_of_the_question() {
        assert_eq!(
            answer(br#"{"cniVersion":"0.4.0"}"#),
            r#"{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
        assert!(answer(b"").starts_with(r#"{"cniVersion":"1.1.0""#));
    }

    #[test]
    fn versions_without_chains_are_refused_by_name() {
        let error = check("0.2.0").unwrap_err();
        assert_eq!(error.code, Code::Version);
        assert!(error.to_string().contains("\"0.2.0\""), "{error}");
        for version in SUPPORTED {
            check(version).unwrap();
        }
    }
}
