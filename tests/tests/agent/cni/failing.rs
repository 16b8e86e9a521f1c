//! ADD that fails, in time and with a reason.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::cni::{
    Call, PREVIOUS,
    agent::{Agent, Mood, Place},
    conf,
};

/// Far more than the plugin was told to wait, far less than a runtime does.
const IN_TIME: Duration = Duration::from_secs(20);

#[test]
fn without_an_agent_a_pod_does_not_start_and_says_what_to_do() {
    let place = Place::new();
    let start = Instant::now();
    let words = [
        "shop/web-0",
        "no agent listens at",
        "DaemonSet",
        "excludeNamespaces",
        "failurePolicy",
    ];
    Call::new("ADD", &place.socket()).fails(11, &words);
    assert!(start.elapsed() < IN_TIME);
}

/// What a killed agent leaves: a socket that nobody listens at.
#[test]
fn a_dead_agents_socket_is_no_agent() {
    let place = Place::new();
    drop(Agent::captures(&place));
    Call::new("ADD", &place.socket()).fails(11, &["no agent listens at"]);
}

#[test]
fn an_agent_that_is_being_replaced_is_waited_for() {
    let place = Place::new();
    let input = conf(&place.socket(), "1.0.0", &json!({"waitSeconds": 30}));
    let agent = thread::scope(|scope| {
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_secs(1));
            Agent::captures(&place)
        });
        Call::new("ADD", &place.socket())
            .input(input)
            .succeeds(PREVIOUS);
        late.join().expect("an agent")
    });
    assert_eq!(agent.heard.all().len(), 1);
}

/// The agent's own word arrives before the plugin gives up.
#[test]
fn a_slow_agent_is_given_up_in_time() {
    let place = Place::new();
    let agent = Agent::start(&place, Mood::Sleeps);
    let start = Instant::now();
    Call::new("ADD", &place.socket()).fails(100, &["did not finish within"]);
    assert!(start.elapsed() < IN_TIME);
    assert_eq!(agent.heard.all().len(), 1);
}

/// Serves one plugin after another at `socket`, with `answer` after it has asked; keeps those
/// connections open, if it has none.
fn rogue(socket: &Path, answer: Option<&'static [u8]>) {
    fs::create_dir_all(socket.parent().expect("a folder")).expect("a folder");
    let listener = UnixListener::bind(socket).expect("a socket");
    // Ends with the test's process.
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _read = stream.read(&mut [0; 4096]);
            match answer {
                Some(answer) => drop(stream.write_all(answer)),
                None => open.push(stream),
            }
        }
    });
}

#[test]
fn an_agent_that_answers_garbage_or_nothing_captures_nothing() {
    for (answer, says) in [
        (Some(&b"garbage\n"[..]), "invalid response"),
        (Some(b"{\"result\":\"perhaps\"}\n"), "invalid response"),
        (Some(b"{\"result\":\"captured\"}"), "closed the connection"),
        (None, "did not respond within"),
    ] {
        let place = Place::new();
        rogue(&place.socket(), answer);
        let start = Instant::now();
        Call::new("ADD", &place.socket()).fails(11, &[says]);
        assert!(start.elapsed() < IN_TIME);
        // Nothing of that stands in the way of a pod's end.
        Call::new("DEL", &place.socket()).succeeds("");
        Call::new("CHECK", &place.socket()).succeeds("");
    }
}

#[test]
fn a_wrong_call_is_answered_with_the_codes_of_the_specification() {
    let place = Place::new();
    let socket = place.socket();
    Call::new("ADD", &socket)
        .input("{")
        .fails(6, &["standard input"]);
    Call::new("ADD", &socket)
        .input("{\"socket\":7}")
        .fails(7, &["expected path", "column"]);
    Call::new("DANCE", &socket).fails(4, &["DANCE", "STATUS"]);
    let old = conf(&socket, "0.2.0", &json!({}));
    let error = Call::new("ADD", &socket).input(old).fails(1, &["0.3.1"]);
    assert_eq!(error["cniVersion"], "0.2.0");
    let mut call = Call::new("ADD", &socket);
    call.netns = "";
    call.fails(4, &["CNI_NETNS"]);
}

#[test]
fn the_log_tells_of_every_pod() {
    let place = Place::new();
    let file = place.socket().with_file_name("cni.log");
    let _agent = Agent::captures(&place);
    let input = conf(&place.socket(), "1.0.0", &json!({ "logFile": file }));
    Call::new("ADD", &place.socket())
        .input(input)
        .succeeds(PREVIOUS);
    let log = fs::read_to_string(file).expect("a log");
    assert!(log.contains("ADD shop/web-0: captured"), "{log}");
}
