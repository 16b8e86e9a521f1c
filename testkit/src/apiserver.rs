//! A Kubernetes API server for tests: objects, lists, watches and RBAC as in the real one, and
//! failures on demand.
//!
//! A request that is not supported, or not allowed, is refused and recorded, so that a test can
//! check the requests.

mod admission;
mod forwarding;
mod parameters;
mod patching;
mod rbac;
mod resource;
mod selector;
mod serving;
mod state;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rbac::Account;
pub use resource::{RESOURCES, Resource};
use serde_json::{Value, json};
pub use state::Recorded;
use state::State;
use tokio::sync::oneshot;

use crate::netns::Netns;

/// The server. Stops when dropped.
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts it on a port of the loopback interface in `netns`.
    pub fn start_in(netns: &Netns) -> Result<Self> {
        netns.enter(bind).and_then(Self::serve_at)
    }

    /// Starts it on a port of this process's loopback interface.
    pub fn start() -> Result<Self> {
        Self::serve_at(bind()?)
    }

    fn serve_at(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let (stop, stopped) = oneshot::channel();
        let router = serving::router(Arc::clone(&state));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = axum::serve(listener, router) => served,
                    _ = stopped => Ok(()),
                }
            })
        };
        let thread = thread::spawn(move || {
            if let Err(error) = serve() {
                eprintln!("API server: {error}");
            }
        });
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for it.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with(&json!({}))
    }

    /// A kubeconfig with which all requests are those of this `ServiceAccount`, whatever
    /// [`Self::authenticate_as`] says.
    #[must_use]
    pub fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> String {
        let account = Account {
            namespace: namespace.to_owned(),
            name: service_account.to_owned(),
        };
        self.kubeconfig_with(&json!({"token": account.token()}))
    }

    fn kubeconfig_with(&self, user: &Value) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "agent", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "agent"}}],
            "current-context": "test",
        });
        config.to_string()
    }

    /// Creates or replaces an object, and notifies watches.
    pub fn put(&self, object: Value) -> Result<Value> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let resource = Resource::of(text("apiVersion"), text("kind"))
            .with_context(|| format!("such objects are not served: {object}"))?;
        Ok(self.state.change(|store| store.put(resource, object)))
    }

    /// Removes an object. False if there is none.
    pub fn remove(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool> {
        let resource = Resource::of(api_version, kind).context(kind.to_owned())?;
        let remove = |store: &mut store::Store| store.remove(resource, namespace, name);
        Ok(self.state.change(remove))
    }

    /// Deletes an object as the real one does in the background: a namespace is marked and exists
    /// until it is empty, any other object is removed.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let [api_version, kind] = [text(&object["apiVersion"]), text(&object["kind"])];
        let [namespace, name] = [text(&metadata["namespace"]), text(&metadata["name"])];
        let there = self.get(&api_version, &kind, &namespace, &name);
        let mut there = there.with_context(|| format!("no {kind} {namespace}/{name}"))?;
        if kind != "Namespace" {
            return self
                .remove(&api_version, &kind, &namespace, &name)
                .map(drop);
        }
        there["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.put(there).map(drop)
    }

    /// An object in its current state.
    #[must_use]
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = Resource::of(api_version, kind)?;
        let inner = self.state.lock();
        inner.store.get(resource, namespace, name).cloned()
    }

    /// The Events about `object` that were created, of both API groups.
    #[must_use]
    pub fn events_about(&self, object: &str) -> Vec<Value> {
        let is_about = |event: &Value| {
            ["involvedObject", "regarding"]
                .iter()
                .any(|field| event[field]["name"] == object)
        };
        let recorded = self.recorded().into_iter();
        recorded
            .filter(|request| request.verb == "create" && request.path.ends_with("/events"))
            .map(|request| request.body)
            .filter(is_about)
            .collect()
    }

    /// Treats every request as one of this `ServiceAccount` from now on, and allows only what the
    /// roles bound to it allow.
    pub fn authenticate_as(&self, namespace: &str, service_account: &str) {
        self.state.lock().account = Some(Account {
            namespace: namespace.to_owned(),
            name: service_account.to_owned(),
        });
    }

    /// All requests so far, in the order of their responses.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.state.lock().recorded.clone()
    }

    /// The requests that were refused: not permitted, or the resource does not exist.
    #[must_use]
    pub fn refused(&self) -> Vec<Recorded> {
        let refusals = [400, 401, 403, 405, 422];
        let mut recorded = self.recorded();
        recorded.retain(|request| refusals.contains(&request.status));
        recorded
    }

    /// The number of open watches.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.state.watches()
    }

    /// Deletes the history, and closes the watches: 410 Gone.
    pub fn expire(&self) {
        self.state.change(store::Store::forget);
        self.state.signal(|signal| signal.expirations += 1);
    }

    /// Deletes the history. Open watches continue; a new watch from an old version gets 410 Gone.
    pub fn forget(&self) {
        self.state.change(store::Store::forget);
    }

    /// Closes all watches' connections, in the middle of their responses.
    pub fn disconnect(&self) {
        self.state.signal(|signal| signal.disconnections += 1);
    }

    /// Sends a bookmark to the watches that requested bookmarks.
    pub fn bookmark(&self) {
        self.state.signal(|signal| signal.bookmarks += 1);
    }

    /// Delays every response from now on.
    pub fn delay(&self, delay: Duration) {
        self.state.lock().faults.delay = delay;
    }

    /// Responds to everything with 503, or no longer.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state.lock().faults.unavailable = unavailable;
    }

    /// Leaves the objects of this name out of lists that need not be the newest (resource version
    /// 0), as a watch cache does that has not received them yet.
    pub fn leave_out(&self, name: &str) {
        self.state.lock().faults.unlisted.insert(name.to_owned());
    }

    /// Whether a custom resource of this plural name is installed. Requests for one that is not get 404.
    pub fn set_installed(&self, plural: &str, installed: bool) {
        let uninstalled = &mut self.state.lock().faults.uninstalled;
        if installed {
            uninstalled.remove(plural);
        } else {
            uninstalled.insert(plural.to_owned());
        }
    }

    /// Refuses watches that start with all objects, as servers before 1.32 do.
    pub fn refuse_streaming_lists(&self) {
        self.state.lock().faults.no_streaming_lists = true;
    }

    /// Creates a pod as a client would: admission webhooks are called. Returns the stored pod, or the
    /// message of the server's refusal.
    pub async fn create_pod(&self, namespace: &str, pod: &Value) -> Result<Value, String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let target = resource::Target::parse(&path).expect("a path of pods");
        let admitted = admission::admit(&self.state, &target, pod).await;
        let mut pod = admitted.map_err(|failure| failure.message().to_owned())?;
        pod["metadata"]["namespace"] = json!(namespace);
        Ok(self.state.change(|store| store.put(target.resource, pod)))
    }

    /// Sets where the endpoints of a Service are reached. Admission webhooks are called there.
    pub fn set_endpoints(&self, namespace: &str, service: &str, endpoints: &[SocketAddr]) {
        let mut inner = self.state.lock();
        inner.set_endpoints(namespace, service, endpoints);
    }

    /// Forwards ports of a pod to the loopback interface of `netns`, as the node's kubelet does.
    pub fn forward_ports(&self, namespace: &str, pod: &str, netns: &Netns) {
        let mut inner = self.state.lock();
        let key = (namespace.to_owned(), pod.to_owned());
        inner.forwards.insert(key, netns.path().to_owned());
    }

    /// The audit annotations and warnings of all calls of admission webhooks:
    /// `{"annotations": {"WEBHOOK/KEY": VALUE}, "warnings": [...]}`.
    #[must_use]
    pub fn admissions(&self) -> Vec<Value> {
        self.state.lock().admissions.clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The server task may have failed, and has reported its error.
        let _ended = self.stop.take().map(|stop| stop.send(()));
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

fn bind() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}
