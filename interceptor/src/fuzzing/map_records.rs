//! The properties of what is read from BPF maps.

use interceptor_ebpf::Event;
use jiff::SignedDuration;
use zerocopy::FromBytes as _;

use super::network;
use crate::{
    dataplane::record::Record,
    netns::stand_in_routes::Sources,
    observe::{
        flow::{Flow, Pod},
        format::{Style, TimeFormat},
    },
    policy::CompiledPolicy,
};

/// An event, and the record of a pod.
pub fn map_records(data: &[u8]) {
    if let Ok((event, _)) = Event::read_from_prefix(data) {
        check_event(&event);
    }
    if let Ok(record) = Record::parse(data) {
        check_record(&record);
    }
}

/// The flow of an event survives a round trip, and is one line where the format has one.
fn check_event(event: &Event) {
    let Ok(flow) = Flow::of(event, SignedDuration::ZERO, Pod::default()) else {
        return;
    };
    let text = serde_json::to_string(&flow).expect("a flow as JSON");
    let again: Flow = serde_json::from_str(&text).expect("a flow");
    assert_eq!(again, flow);
    let style = Style {
        time: TimeFormat::Rfc3339Nano,
        is_colored: false,
    };
    for line in [style.compact(&flow), style.row(&flow)] {
        let controls = line
            .trim_end_matches('\n')
            .chars()
            .filter(|c| c.is_control());
        assert_eq!(controls.count(), 0, "{line:?}");
    }
}

/// A record survives a round trip, and a policy can be compiled from it.
fn check_record(record: &Record) {
    let text = serde_json::to_vec(record).expect("a record as JSON");
    assert_eq!(&Record::parse(&text).expect("a record"), record);
    let _policy = CompiledPolicy::new(1, &record.settings, &network(), &Sources::default());
}
