//! The dispatcher of each network namespace, and the program that all of them call.

use std::time::Instant;

use interceptor::bpf::{dispatcher, maps::Maps, object::Object, pins::Pins};
use interceptor_testkit::{
    bpf::calls::{Between, WORDS},
    lab::{Caller, Lab, STOCK},
};

use crate::alone;

/// The number of pods of a node.
const PODS: u64 = 250;

/// Two pods, attached with the same settings.
fn labs(alone: &interceptor_testkit::machine::Exclusive) -> [Lab; 2] {
    [(); 2].map(|()| {
        let lab = Lab::alone(alone).expect("a lab");
        lab.start_proxy().expect("a proxy");
        lab.attach(STOCK).expect("attached");
        lab
    })
}

fn dial(lab: &Lab) -> [String; 2] {
    [
        (Caller::App, "10.2.0.9:80"),
        (Caller::Client, "10.1.0.2:8080"),
    ]
    .map(|(caller, to)| lab.dial(caller, to).expect("a dial"))
}

const CAPTURED: [&str; 2] = [
    "proxy:15001 for 10.2.0.9:80",
    "proxy:15006 for 10.1.0.2:8080",
];
const REFUSED: [&str; 2] = ["ECONNREFUSED"; 2];

#[test]
fn an_interrupted_lookup_is_refused() {
    let alone = alone();
    let labs = labs(&alone);
    let other = labs[1].cookie();
    for words in [&[0, 1, 2, 3][..], &[0], &[1], &[2], &[WORDS - 1]] {
        let _between = Between::overwriting(words, other).expect("a program");
        assert_eq!(dial(&labs[0]), REFUSED, "{words:?}");
    }
    // A program between them that does not modify the call is harmless.
    let between = Between::overwriting(&[], other).expect("a program");
    assert_eq!(dial(&labs[0]), CAPTURED);
    between.leave_none().expect("detached");
    assert_eq!(dial(&labs[0]), REFUSED, "there is no shared program");
    labs[0].attach(STOCK).expect("attached");
    for lab in &labs {
        assert_eq!(dial(lab), CAPTURED, "the next attach shares it again");
    }
}

#[test]
fn dispatchers_of_a_full_node_are_loaded_at_once() {
    let _alone = alone();
    let pins = Pins::named("interceptor-test-dispatchers");
    pins.create().expect("directories");
    let loaded = Object::new(pins.clone()).read().and_then(|_maps_made| {
        let maps = Maps::open(&pins.maps())?;
        let start = Instant::now();
        let programs = (1..=PODS).map(|netns| dispatcher::load(&maps, netns));
        let programs: Vec<_> = programs.collect::<Result<_, _>>()?;
        Ok((programs.len(), start.elapsed()))
    });
    pins.remove_all().expect("removed");
    let (count, elapsed) = loaded.expect("loaded");
    println!("{count} programs in {elapsed:?}");
    assert_eq!(count, usize::try_from(PODS).expect("a number"));
}
