//! The texts of Envoy's configuration that were made before: the same for all pods of a workload, and
//! for all pods without TCP probes. Making one takes most of an injection's time.

use std::{
    num::NonZeroUsize,
    sync::{LazyLock, Mutex, PoisonError},
};

use lru::LruCache;

use super::bootstrap::Probe;

/// Texts that are kept. Beyond this number, the least recently used one is dropped.
const MAX_TEXTS: NonZeroUsize = NonZeroUsize::new(128).unwrap();
/// A larger text is not kept, so that all together take at most 8 MiB.
const MAX_LENGTH: usize = 64 << 10;

static TEXTS: LazyLock<Mutex<LruCache<Vec<Probe>, String>>> =
    LazyLock::new(|| Mutex::new(LruCache::new(MAX_TEXTS)));

/// The text for a pod with these probes, which `make` makes.
pub(super) fn find_or_make(probes: Vec<Probe>, make: impl Fn(Vec<Probe>) -> String) -> String {
    let texts = || TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = texts().get(&probes) {
        return text.clone();
    }
    let text = make(probes.clone());
    if text.len() <= MAX_LENGTH {
        texts().put(probes, text.clone());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(port: u16) -> Probe {
        Probe {
            path: format!("/test-of-texts/{port}"),
            port,
            period: 10,
            timeout: 1,
        }
    }

    #[test]
    fn each_set_of_probes_has_its_own_text() {
        let text = |ports: &[u16]| {
            let probes = ports.iter().copied().map(probe).collect();
            find_or_make(probes, |probes| format!("{probes:?}"))
        };
        let (one, both) = (text(&[1]), text(&[1, 2]));
        assert!(one.contains("port: 1") && !one.contains("port: 2"));
        assert!(both.contains("port: 2"));
        let kept = find_or_make(vec![probe(1)], |_| "made again".to_owned());
        assert_eq!(kept, one);
    }

    #[test]
    fn a_large_text_is_not_kept() {
        let large = || find_or_make(vec![probe(3)], |_| "x".repeat(MAX_LENGTH + 1));
        assert_eq!(large().len(), MAX_LENGTH + 1);
        let small = find_or_make(vec![probe(3)], |_| "small".to_owned());
        assert_eq!(small, "small");
    }
}
