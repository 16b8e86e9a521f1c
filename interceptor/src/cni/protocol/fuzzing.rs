//! The properties of messages.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{Response, server};
use crate::observe::message::Message;

/// A line from the plugin to the agent, from the agent to the plugin, or from the agent to an observer: if
/// it is understood, it means the same after it is written again.
pub fn wire(data: &[u8]) {
    match server::parse(data) {
        Ok(envelope) => {
            let again = server::parse(&line(&envelope));
            assert_eq!(again.as_ref(), Ok(&envelope));
        }
        // It is sent to the plugin.
        Err(reason) => check(&Response::Unknown { reason }),
    }
    check_if::<Response>(data);
    check_if::<Message>(data);
}

fn check_if<T: Debug + PartialEq + Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(data) {
        check(&message);
    }
}

fn check<T: Debug + PartialEq + Serialize + DeserializeOwned>(message: &T) {
    let again = serde_json::from_slice::<T>(&line(message));
    assert_eq!(&again.expect("a message"), message);
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let line = serde_json::to_vec(message).expect("a message as JSON");
    assert!(!line.contains(&b'\n'), "a message of several lines");
    line
}
