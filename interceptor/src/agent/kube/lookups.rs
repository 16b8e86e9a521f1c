//! What a pod's object does not say itself: which handler its `RuntimeClass` names, and what its
//! namespace permits. Asked when it is needed, and kept.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use k8s_openapi::api::{core::v1::Namespace, node::v1::RuntimeClass};
use kube::{Api, Client};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use super::api;
use crate::agent::policy::{index, pod::Pod, select::Runtime};

/// On a namespace, with the value `true`: what captures less may be followed while a pod runs.
pub const ALLOW_RELAXATION: &str = "interceptor.dev/allow-relaxation";

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer is kept: events of all pods would ask, and wait for the answer. Nothing tells
/// that a class was made, or made again with another handler, or what a namespace permits.
pub(in crate::agent) const CACHE_TTL: Duration = Duration::from_secs(30);

/// Asks the API server.
pub struct Lookups {
    client: Client,
    reads_namespaces: bool,
    /// By the class. `None`: asked for in vain.
    handlers: Cache<Option<String>>,
    /// By the namespace, whether it permits to capture less.
    permissions: Cache<bool>,
}

impl Lookups {
    /// Nothing is known yet. Namespaces are asked for only if that matters.
    #[must_use]
    pub fn new(client: Client, reads_namespaces: bool) -> Self {
        Self {
            client,
            reads_namespaces,
            handlers: Cache::default(),
            permissions: Cache::default(),
        }
    }

    /// Those of `pod`. If that is `changed`, its namespace is asked what it permits now.
    pub async fn of(&self, pod: &Pod, changed: bool) -> index::PodContext {
        let runtime = match &pod.runtime_class {
            Some(class) => self.runtime(class).await,
            None => Runtime::Default,
        };
        let may_relax = self.reads_namespaces && self.may_relax(pod, changed).await;
        index::PodContext { runtime, may_relax }
    }

    async fn runtime(&self, class: &str) -> Runtime {
        let ask = async |known: Option<Option<String>>| {
            // A class that cannot be asked for again is what it was.
            self.handler(class).await.or(known.flatten())
        };
        let handler = self.handlers.get(class, CACHE_TTL, ask).await;
        handler.map_or_else(|| Runtime::Unknown(class.to_owned()), Runtime::Handler)
    }

    async fn handler(&self, class: &str) -> Option<String> {
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let found = api::request(REQUEST_TIMEOUT, classes.get(class)).await;
        found
            .inspect_err(|problem| warn!("cannot get the RuntimeClass {class}: {problem}"))
            .ok()
            .map(|found| found.handler)
    }

    /// Asks again for classes that were asked for in vain, when they are needed next.
    pub(in crate::agent) fn forget_unknown(&self) {
        self.handlers.forget(Option::is_none);
    }

    async fn may_relax(&self, pod: &Pod, changed: bool) -> bool {
        let namespace = &pod.name.namespace;
        let ttl = if changed { Duration::ZERO } else { CACHE_TTL };
        let ask = async |_known| self.allows_relaxation(namespace).await;
        self.permissions.get(namespace, ttl, ask).await
    }

    /// What is not known is not permitted.
    async fn allows_relaxation(&self, namespace: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = match api::request(REQUEST_TIMEOUT, namespaces.get(namespace)).await {
            Ok(found) => found,
            Err(problem) => {
                warn!(
                    "cannot get the namespace {namespace}, assuming that it allows no relaxation: \
                     {problem}"
                );
                return false;
            }
        };
        let annotations = found.metadata.annotations.unwrap_or_default();
        annotations
            .get(ALLOW_RELAXATION)
            .is_some_and(|value| value == "true")
    }
}

/// What has been answered for a name, and when. Empty while it is asked for the first time.
type CacheEntry<T> = Rc<Mutex<Option<(Instant, T)>>>;

/// A cache by name. Concurrent requests for one name wait for the result of the first.
struct Cache<T>(RefCell<HashMap<String, CacheEntry<T>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Clone> Cache<T> {
    /// The value for `name`, which is looked up again if it is older than `ttl`.
    async fn get(&self, name: &str, ttl: Duration, ask: impl AsyncFnOnce(Option<T>) -> T) -> T {
        let answer = self
            .0
            .borrow_mut()
            .entry(name.to_owned())
            .or_default()
            .clone();
        let mut answer = answer.lock().await;
        if let Some((asked, known)) = &*answer
            && asked.elapsed() < ttl
        {
            return known.clone();
        }
        let known = answer.as_ref().map(|(_, known)| known.clone());
        let now = ask(known).await;
        *answer = Some((Instant::now(), now.clone()));
        now
    }

    /// Drops values; a value that is being looked up will be new in any case.
    fn forget(&self, which: impl Fn(&T) -> bool) {
        let is_to_go = |answer: &CacheEntry<T>| {
            let answer = answer.try_lock();
            answer.is_ok_and(|answer| answer.as_ref().is_some_and(|(_, known)| which(known)))
        };
        self.0.borrow_mut().retain(|_, answer| !is_to_go(answer));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;
    use tokio::{runtime, task::yield_now};

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn who_asks_at_once_for_the_same_waits_for_one_answer() {
        let cache = Cache::default();
        let asked = Cell::new(0);
        let ask = |name| {
            cache.get(name, CACHE_TTL, async |_| {
                asked.set(asked.get() + 1);
                yield_now().await;
                asked.get()
            })
        };
        let told = block_on(join_all(["one", "one", "other", "one"].map(ask)));
        assert_eq!(asked.get(), 2);
        assert_eq!((told[0], told[1]), (told[3], told[3]));
    }

    #[test]
    fn an_answer_is_asked_for_again_when_it_is_old_and_is_else_what_it_was() {
        let cache = Cache::default();
        let get = |ttl, now: Option<u32>| {
            let ask = async |known: Option<Option<u32>>| now.or(known.flatten());
            block_on(cache.get("class", ttl, ask))
        };
        assert_eq!(get(CACHE_TTL, Some(1)), Some(1));
        assert_eq!(get(CACHE_TTL, Some(2)), Some(1));
        assert_eq!(get(Duration::ZERO, Some(2)), Some(2));
        // In vain.
        assert_eq!(get(Duration::ZERO, None), Some(2));
    }

    #[test]
    fn only_what_is_unknown_is_forgotten() {
        let cache = Cache::default();
        let get = |name, now: Option<u32>| block_on(cache.get(name, CACHE_TTL, async |_| now));
        assert_eq!(get("known", Some(1)), Some(1));
        assert_eq!(get("unknown", None), None);
        cache.forget(Option::is_none);
        assert_eq!(get("known", Some(2)), Some(1));
        assert_eq!(get("unknown", Some(2)), Some(2));
    }
}
