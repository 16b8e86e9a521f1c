//! The parameters of a request's query string.

use serde::Deserialize;

use super::{selector::Selector, status::Failure};

/// `ListOptions`, and the parameters of create requests, which are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Parameters {
    pub(super) watch: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) resource_version_match: Option<String>,
    pub(super) limit: Option<usize>,
    #[serde(rename = "continue")]
    pub(super) token: Option<String>,
    pub(super) field_selector: Option<String>,
    pub(super) label_selector: Option<String>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) allow_watch_bookmarks: Option<String>,
    pub(super) send_initial_events: Option<String>,
}

/// The requested resource version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The newest: no version was given.
    Newest,
    /// Any: 0.
    Any,
    /// At least this one.
    At(u64),
}

impl Parameters {
    pub(super) fn is_watch(&self) -> bool {
        is_true(self.watch.as_ref())
    }

    pub(super) fn wants_bookmarks(&self) -> bool {
        is_true(self.allow_watch_bookmarks.as_ref())
    }

    pub(super) fn wants_initial_events(&self) -> bool {
        is_true(self.send_initial_events.as_ref())
    }

    pub(super) fn version(&self) -> Result<Version, Failure> {
        match self.resource_version.as_deref() {
            None | Some("") => Ok(Version::Newest),
            Some("0") => Ok(Version::Any),
            Some(text) => text
                .parse()
                .map(Version::At)
                .map_err(|_| Failure::bad_request(format!("invalid resource version: {text}"))),
        }
    }

    pub(super) fn selector(&self) -> Result<Selector, Failure> {
        let fields = self.field_selector.as_deref().unwrap_or_default();
        let labels = self.label_selector.as_deref().unwrap_or_default();
        Selector::parse(fields)
            .and_then(|selector| selector.with_labels(labels))
            .map_err(Failure::bad_request)
    }

    /// The validation of the real one (`validation.ValidateListOptions`).
    pub(super) fn validate(&self, has_streaming_lists: bool) -> Result<(), Failure> {
        let has_match = self.resource_version_match.is_some();
        if self.send_initial_events.is_some() && !(self.is_watch() && has_streaming_lists) {
            return Err(Failure::invalid(
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            ));
        }
        if self.send_initial_events.is_some() && !has_match {
            return Err(Failure::invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if self.is_watch() && has_match && self.send_initial_events.is_none() {
            return Err(Failure::invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if has_match && self.token.is_some() {
            return Err(Failure::invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        let has_version = self.version()? != Version::Newest;
        if has_match && !has_version && self.send_initial_events.is_none() {
            return Err(Failure::invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        Ok(())
    }
}

fn is_true(text: Option<&String>) -> bool {
    matches!(text.map(String::as_str), Some("true" | "1"))
}
