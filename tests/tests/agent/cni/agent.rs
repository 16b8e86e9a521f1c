//! An agent at a socket of the test's own, with the product's half of the protocol.

use std::{
    future,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use interceptor::cni::protocol::{AddRequest, DelRequest, Handler, Listener, Outcome, serve};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What the agent does when it is asked about a pod.
#[derive(Clone)]
pub(crate) enum Mood {
    Answers(Outcome),
    Sleeps,
}

#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, what: String) {
        self.0.lock().expect("a lock").push(what);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("a lock").clone()
    }
}

struct Scripted {
    mood: Mood,
    heard: Heard,
}

impl Scripted {
    async fn answer(&self, verb: &str, request: AddRequest) -> Outcome {
        let AddRequest { netns, pod, uid } = request;
        let uid = uid.unwrap_or_default();
        let netns = netns.display();
        self.heard.note(format!("{verb} {pod} {uid} {netns}"));
        match &self.mood {
            Mood::Answers(outcome) => outcome.clone(),
            Mood::Sleeps => future::pending().await,
        }
    }
}

impl Handler for Scripted {
    async fn add(&self, request: AddRequest) -> Outcome {
        self.answer("add", request).await
    }

    async fn check(&self, request: AddRequest) -> Outcome {
        self.answer("check", request).await
    }

    async fn del(&self, request: DelRequest) {
        let id = request.container_id;
        let netns = request.netns.is_some();
        self.heard.note(format!("del {id} netns={netns}"));
    }

    async fn gc(&self) {
        self.heard.note("gc".to_owned());
    }
}

/// A folder for a socket.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("run/agent.sock")
    }
}

/// A living agent. Dead when dropped, as if killed: its socket stays.
pub(crate) struct Agent {
    pub(crate) heard: Heard,
    thread: Option<thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Agent {
    pub(crate) fn start(place: &Place, mood: Mood) -> Self {
        let heard = Heard::default();
        let scripted = Scripted {
            mood,
            heard: heard.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let socket = place.socket();
        let thread = thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = Listener::bind(&socket).expect("a socket");
                ready.send(()).expect("the test waits");
                tokio::select! {
                    () = serve(listener, scripted) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready
            .recv_timeout(Duration::from_secs(30))
            .expect("an agent");
        Self {
            heard,
            thread: Some(thread),
            stop: Some(stop),
        }
    }

    pub(crate) fn captures(place: &Place) -> Self {
        Self::start(place, Mood::Answers(Outcome::Captured))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(
            !matches!(ended, Some(Err(_))) || thread::panicking(),
            "the agent has panicked"
        );
    }
}
