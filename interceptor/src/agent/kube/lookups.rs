//! Facts about a pod from other objects: the handler of its `RuntimeClass`, and what its namespace
//! allows. Looked up when needed, and cached.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use k8s_openapi::api::{core::v1::Namespace, node::v1::RuntimeClass};
use kube::{Api, Client};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use crate::{
    agent::policy::{index, pod::Pod, select::Runtime},
    api_server,
};

/// The annotation of a namespace that, with the value `true`, allows changes that capture less.
pub const ALLOW_RELAXATION: &str = "interceptor.dev/allow-relaxation";

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a result is cached, so that events of pods do not wait for lookups. The agent does not
/// watch these objects, and detects their changes only by a new lookup.
pub(in crate::agent) const CACHE_TTL: Duration = Duration::from_secs(30);

/// Cached lookups at the API server.
pub struct Lookups {
    client: Client,
    reads_namespaces: bool,
    /// By `RuntimeClass`. `None` if the lookup failed.
    handlers: Cache<Option<String>>,
    /// By namespace, whether it allows changes that capture less.
    permissions: Cache<bool>,
}

impl Lookups {
    /// Empty caches. Namespaces are looked up only with `reads_namespaces`.
    #[must_use]
    pub fn new(client: Client, reads_namespaces: bool) -> Self {
        Self {
            client,
            reads_namespaces,
            handlers: Cache::default(),
            permissions: Cache::default(),
        }
    }

    /// The facts about `pod`. If the pod has `changed`, its namespace is looked up again.
    pub async fn of(&self, pod: &Pod, changed: bool) -> index::PodContext {
        let runtime = match &pod.runtime_class {
            Some(class) => self.runtime(class).await,
            None => Runtime::Default,
        };
        let may_relax = self.reads_namespaces && self.may_relax(pod, changed).await;
        index::PodContext { runtime, may_relax }
    }

    async fn runtime(&self, class: &str) -> Runtime {
        let look_up = async |known: Option<Option<String>>| {
            // If a repeated lookup fails, the cached handler stays.
            self.handler(class).await.or(known.flatten())
        };
        let handler = self.handlers.get(class, CACHE_TTL, look_up).await;
        handler.map_or_else(|| Runtime::Unknown(class.to_owned()), Runtime::Handler)
    }

    async fn handler(&self, class: &str) -> Option<String> {
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let found = api_server::request(REQUEST_TIMEOUT, classes.get(class)).await;
        found
            .inspect_err(|problem| warn!("cannot get the RuntimeClass {class}: {problem}"))
            .ok()
            .map(|found| found.handler)
    }

    /// Drops failed lookups from the cache, so that the next use retries them.
    pub(in crate::agent) fn forget_unknown(&self) {
        self.handlers.forget(Option::is_none);
    }

    async fn may_relax(&self, pod: &Pod, changed: bool) -> bool {
        let namespace = &pod.name.namespace;
        let ttl = if changed { Duration::ZERO } else { CACHE_TTL };
        let look_up = async |_known| self.allows_relaxation(namespace).await;
        self.permissions.get(namespace, ttl, look_up).await
    }

    /// False if the lookup fails.
    async fn allows_relaxation(&self, namespace: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = match api_server::request(REQUEST_TIMEOUT, namespaces.get(namespace)).await {
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

/// The result for a name, and its time. Empty during the first lookup.
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
    async fn get(&self, name: &str, ttl: Duration, look_up: impl AsyncFnOnce(Option<T>) -> T) -> T {
        let entry = self
            .0
            .borrow_mut()
            .entry(name.to_owned())
            .or_default()
            .clone();
        let mut entry = entry.lock().await;
        if let Some((time, known)) = &*entry
            && time.elapsed() < ttl
        {
            return known.clone();
        }
        let known = entry.as_ref().map(|(_, known)| known.clone());
        let new = look_up(known).await;
        *entry = Some((Instant::now(), new.clone()));
        new
    }

    /// Drops the values that `which` selects, except those that are being looked up.
    fn forget(&self, which: impl Fn(&T) -> bool) {
        let is_selected = |entry: &CacheEntry<T>| {
            let entry = entry.try_lock();
            entry.is_ok_and(|entry| entry.as_ref().is_some_and(|(_, known)| which(known)))
        };
        self.0.borrow_mut().retain(|_, entry| !is_selected(entry));
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
    fn concurrent_requests_for_one_name_share_a_lookup() {
        let cache = Cache::default();
        let lookups = Cell::new(0);
        let get = |name| {
            cache.get(name, CACHE_TTL, async |_| {
                lookups.set(lookups.get() + 1);
                yield_now().await;
                lookups.get()
            })
        };
        let values = block_on(join_all(["one", "one", "other", "one"].map(get)));
        assert_eq!(lookups.get(), 2);
        assert_eq!((values[0], values[1]), (values[3], values[3]));
    }

    #[test]
    fn an_expired_value_is_looked_up_again() {
        let cache = Cache::default();
        let get = |ttl, now: Option<u32>| {
            let look_up = async |known: Option<Option<u32>>| now.or(known.flatten());
            block_on(cache.get("class", ttl, look_up))
        };
        assert_eq!(get(CACHE_TTL, Some(1)), Some(1));
        assert_eq!(get(CACHE_TTL, Some(2)), Some(1));
        assert_eq!(get(Duration::ZERO, Some(2)), Some(2));
        // The lookup fails.
        assert_eq!(get(Duration::ZERO, None), Some(2));
    }

    #[test]
    fn only_unknown_values_are_forgotten() {
        let cache = Cache::default();
        let get = |name, now: Option<u32>| block_on(cache.get(name, CACHE_TTL, async |_| now));
        assert_eq!(get("known", Some(1)), Some(1));
        assert_eq!(get("unknown", None), None);
        cache.forget(Option::is_none);
        assert_eq!(get("known", Some(2)), Some(1));
        assert_eq!(get("unknown", Some(2)), Some(2));
    }
}
