//! ADD fails in time and with a reason.

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
    agent::{Agent, Behavior, SocketDir},
    conf,
};

/// Far more than the plugin's timeout, far less than a runtime's.
const IN_TIME: Duration = Duration::from_secs(20);

#[test]
fn without_an_agent_add_fails_with_instructions() {
    let dir = SocketDir::new();
    let start = Instant::now();
    let words = [
        "shop/web-0",
        "no agent listens at",
        "DaemonSet",
        "excludeNamespaces",
        "failurePolicy",
    ];
    Call::new("ADD", &dir.socket()).fails(11, &words);
    assert!(start.elapsed() < IN_TIME);
}

/// A killed agent leaves a socket without a listener.
#[test]
fn a_killed_agents_socket_counts_as_no_agent() {
    let dir = SocketDir::new();
    drop(Agent::captures(&dir));
    Call::new("ADD", &dir.socket()).fails(11, &["no agent listens at"]);
}

#[test]
fn add_waits_for_an_agent_that_is_being_replaced() {
    let dir = SocketDir::new();
    let input = conf(&dir.socket(), "1.0.0", &json!({"waitSeconds": 30}));
    let agent = thread::scope(|scope| {
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_secs(1));
            Agent::captures(&dir)
        });
        Call::new("ADD", &dir.socket())
            .input(input)
            .succeeds(PREVIOUS);
        late.join().expect("an agent")
    });
    assert_eq!(agent.calls.all().len(), 1);
}

/// The agent's own error arrives before the plugin's timeout.
#[test]
fn a_hanging_agent_causes_a_timeout() {
    let dir = SocketDir::new();
    let agent = Agent::start(&dir, Behavior::Hangs);
    let start = Instant::now();
    Call::new("ADD", &dir.socket()).fails(100, &["did not finish within"]);
    assert!(start.elapsed() < IN_TIME);
    assert_eq!(agent.calls.all().len(), 1);
}

/// Serves one plugin after another at `socket`, with `response` after each request. Without a response,
/// keeps the connections open.
fn rogue(socket: &Path, response: Option<&'static [u8]>) {
    fs::create_dir_all(socket.parent().expect("a directory")).expect("a directory");
    let listener = UnixListener::bind(socket).expect("a socket");
    // The thread runs until the test process exits.
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _read = stream.read(&mut [0; 4096]);
            match response {
                Some(response) => drop(stream.write_all(response)),
                None => open.push(stream),
            }
        }
    });
}

#[test]
fn an_invalid_or_missing_response_fails_add() {
    for (response, says) in [
        (Some(&b"garbage\n"[..]), "invalid response"),
        (Some(b"{\"result\":\"perhaps\"}\n"), "invalid response"),
        (Some(b"{\"result\":\"captured\"}"), "closed the connection"),
        (None, "did not respond within"),
    ] {
        let dir = SocketDir::new();
        rogue(&dir.socket(), response);
        let start = Instant::now();
        Call::new("ADD", &dir.socket()).fails(11, &[says]);
        assert!(start.elapsed() < IN_TIME);
        // DEL and CHECK succeed nevertheless.
        Call::new("DEL", &dir.socket()).succeeds("");
        Call::new("CHECK", &dir.socket()).succeeds("");
    }
}

#[test]
fn an_invalid_call_fails_with_the_specified_codes() {
    let dir = SocketDir::new();
    let socket = dir.socket();
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
fn every_pod_is_logged() {
    let dir = SocketDir::new();
    let file = dir.socket().with_file_name("cni.log");
    let _agent = Agent::captures(&dir);
    let input = conf(&dir.socket(), "1.0.0", &json!({ "logFile": file }));
    Call::new("ADD", &dir.socket())
        .input(input)
        .succeeds(PREVIOUS);
    let log = fs::read_to_string(file).expect("a log");
    assert!(log.contains("ADD shop/web-0: captured"), "{log}");
}
