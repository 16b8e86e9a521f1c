//! Kubernetes Events.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, Recorder, Reporter},
};
use tracing::debug;

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum length of an Event's text (`noteLengthLimit` of the API server).
const MAX_NOTE_LENGTH: usize = 1024;

/// Publishes an Event about an object. A failure is only logged.
pub(crate) async fn publish(
    client: Client,
    reporter: Reporter,
    mut event: Event,
    about: &ObjectReference,
) {
    event.note = event.note.as_deref().map(shortened);
    // A new recorder each time: a recorder counts a second Event of the same reason as a repetition
    // of the first, with the first one's text. (Callers drop repetitions.)
    let recorder = Recorder::new(client, reporter);
    let publish = recorder.publish(&event, about);
    if let Err(problem) = super::request(REQUEST_TIMEOUT, publish).await {
        debug!("failed to publish event: {problem}");
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= MAX_NOTE_LENGTH {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE_LENGTH - '…'.len_utf8());
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_boundary() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(MAX_NOTE_LENGTH));
        assert!(long.len() <= MAX_NOTE_LENGTH && long.ends_with("ä…"));
    }
}
