//! Versions of the specification.

use serde::Deserialize;
use serde_json::json;

use super::error::{CniError, Code};

/// The supported versions: all with chained plugins. The passed-on result has the same form in all.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest supported version.
pub const NEWEST: &str = SUPPORTED[SUPPORTED.len() - 1];

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "cniVersion")]
    version: String,
}

/// The configuration's version, or the newest if it has none.
#[must_use]
pub fn of_input(input: &[u8]) -> String {
    serde_json::from_slice(input).map_or_else(|_| NEWEST.to_owned(), |conf: Version| conf.version)
}

/// Fails if the version is not supported.
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

/// The result of VERSION.
#[must_use]
pub fn response(input: &[u8]) -> String {
    let response = json!({ "cniVersion": of_input(input), "supportedVersions": SUPPORTED });
    response.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_has_the_version_of_the_request() {
        assert_eq!(
            response(br#"{"cniVersion":"0.4.0"}"#),
            r#"{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
        assert!(response(b"").starts_with(r#"{"cniVersion":"1.1.0""#));
    }

    #[test]
    fn versions_without_chained_plugins_are_refused() {
        let error = check("0.2.0").unwrap_err();
        assert_eq!(error.code, Code::Version);
        assert!(error.to_string().contains("\"0.2.0\""), "{error}");
        for version in SUPPORTED {
            check(version).unwrap();
        }
    }
}
