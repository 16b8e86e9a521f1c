//! What a pod's object does not say itself: which handler its `RuntimeClass` names, and what its
//! namespace permits. Asked when it is needed, and kept.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use k8s_openapi::api::{core::v1::Namespace, node::v1::RuntimeClass};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{index, pod::Pod, selection::Runtime};

/// On a namespace, with the value `true`: what captures less may be followed while a pod runs.
pub const MAY_LOOSEN: &str = "interceptor.dev/may-loosen";

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a class is not asked for again that was asked for in vain: every event of every pod of it
/// would, and others would wait for the answer.
pub(super) const MEMORY: Duration = Duration::from_secs(30);

/// Asks the API server.
pub struct Surroundings {
    client: Client,
    asks_namespaces: bool,
    /// The handlers never change (the API server refuses it), unless a class is made anew.
    handlers: RefCell<HashMap<String, String>>,
    /// The classes that were asked for in vain, and when.
    unknown: RefCell<HashMap<String, Instant>>,
}

impl Surroundings {
    /// Nothing is known yet. Namespaces are asked for only if that matters.
    #[must_use]
    pub fn new(client: Client, asks_namespaces: bool) -> Self {
        Self {
            client,
            asks_namespaces,
            handlers: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Those of `pod`.
    pub async fn of(&self, pod: &Pod) -> index::Surroundings {
        let runtime = match &pod.runtime_class {
            Some(class) => self.runtime(class).await,
            None => Runtime::Default,
        };
        let may_loosen = self.asks_namespaces && self.may_loosen(&pod.name.namespace).await;
        index::Surroundings {
            runtime,
            may_loosen,
        }
    }

    async fn runtime(&self, class: &str) -> Runtime {
        if let Some(handler) = self.handlers.borrow().get(class) {
            return Runtime::Handler(handler.clone());
        }
        if self.is_known_to_be_unknown(class) {
            return Runtime::Unknown(class.to_owned());
        }
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let problem = match timeout(PATIENCE, classes.get(class)).await {
            Ok(Ok(found)) => {
                let mut handlers = self.handlers.borrow_mut();
                handlers.insert(class.to_owned(), found.handler.clone());
                return Runtime::Handler(found.handler);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_late) => "no answer".to_owned(),
        };
        warn!("cannot ask for the RuntimeClass {class}: {problem}");
        let mut unknown = self.unknown.borrow_mut();
        unknown.insert(class.to_owned(), Instant::now());
        Runtime::Unknown(class.to_owned())
    }

    fn is_known_to_be_unknown(&self, class: &str) -> bool {
        let unknown = self.unknown.borrow();
        unknown
            .get(class)
            .is_some_and(|asked| asked.elapsed() < MEMORY)
    }

    /// Asks again for classes that were asked for in vain, when they are needed next.
    pub(super) fn forget_unknown(&self) {
        self.unknown.borrow_mut().clear();
    }

    /// What is not known is not permitted.
    async fn may_loosen(&self, namespace: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let Ok(Ok(found)) = timeout(PATIENCE, namespaces.get(namespace)).await else {
            warn!("cannot ask for the namespace {namespace}: it permits nothing until it is known");
            return false;
        };
        let annotations = found.metadata.annotations.unwrap_or_default();
        annotations
            .get(MAY_LOOSEN)
            .is_some_and(|value| value == "true")
    }
}
