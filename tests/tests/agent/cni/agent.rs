//! A scripted agent at a socket of the test, with the real server side of the protocol.

use std::{
    future,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use interceptor::cni::protocol::{AddRequest, DelRequest, Handler, Listener, PodResult, serve};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The agent's reaction to requests about pods.
#[derive(Clone)]
pub(crate) enum Behavior {
    Returns(PodResult),
    Hangs,
}

#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn push(&self, call: String) {
        self.0.lock().expect("a lock").push(call);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("a lock").clone()
    }
}

struct Scripted {
    behavior: Behavior,
    calls: Calls,
}

impl Scripted {
    async fn handle(&self, verb: &str, request: AddRequest) -> PodResult {
        let AddRequest { netns, pod, uid } = request;
        let uid = uid.unwrap_or_default();
        let netns = netns.display();
        self.calls.push(format!("{verb} {pod} {uid} {netns}"));
        match &self.behavior {
            Behavior::Returns(outcome) => outcome.clone(),
            Behavior::Hangs => future::pending().await,
        }
    }
}

impl Handler for Scripted {
    async fn add(&self, request: AddRequest) -> PodResult {
        self.handle("add", request).await
    }

    async fn check(&self, request: AddRequest) -> PodResult {
        self.handle("check", request).await
    }

    async fn del(&self, request: DelRequest) {
        let id = request.container_id;
        let netns = request.netns.is_some();
        self.calls.push(format!("del {id} netns={netns}"));
    }

    async fn gc(&self) {
        self.calls.push("gc".to_owned());
    }
}

/// A temporary directory for a socket.
pub(crate) struct SocketDir(TempDir);

impl SocketDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path().join("run/agent.sock")
    }
}

/// A running agent. Dropping it leaves its socket behind, as a killed agent does.
pub(crate) struct Agent {
    pub(crate) calls: Calls,
    thread: Option<thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Agent {
    pub(crate) fn start(dir: &SocketDir, behavior: Behavior) -> Self {
        let calls = Calls::default();
        let scripted = Scripted {
            behavior,
            calls: calls.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let socket = dir.socket();
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
            calls,
            thread: Some(thread),
            stop: Some(stop),
        }
    }

    pub(crate) fn captures(dir: &SocketDir) -> Self {
        Self::start(dir, Behavior::Returns(PodResult::Captured))
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
