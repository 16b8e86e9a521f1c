//! Templates that were rendered before, by their input.
//!
//! The pods of one workload have equal inputs but for the names of volumes that the API server makes
//! up (`api_access`). Rendering takes most of an injection's time.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

/// Results that are kept. Beyond this number or size, the least recently used one is dropped.
const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Their size, in bytes.
const MAX_SIZE: usize = 8 << 20;
/// A larger result is not kept: it would replace too many others.
const MAX_ENTRY_SIZE: usize = MAX_SIZE / 16;
/// What an entry needs besides its text: its key, and its places in a table and in a list.
const OVERHEAD: usize = 256;

/// A digest of all that a rendering depends on besides the configuration. Pods are written by their
/// owners, so the digest must be one for which no two inputs of equal digest can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// For `template` with `input`, which marks its own end, as JSON does.
    pub(super) fn of(input: &[u8], template: &str) -> Self {
        let digest = Sha256::new().chain_update(input).chain_update(template);
        Self(digest.finalize().into())
    }
}

/// The result of a rendering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The patch, in JSON: a parsed one takes several times the memory.
    Overlay(Arc<str>),
    /// The result has a name in it that differs between pods of equal input.
    OfOnePod,
}

impl Entry {
    fn size(&self) -> usize {
        let text = match self {
            Self::Overlay(text) => text.len(),
            Self::OfOnePod => 0,
        };
        text + OVERHEAD
    }
}

/// How often a result was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoCounts {
    /// Found.
    pub hits: u64,
    /// Not found.
    pub misses: u64,
}

/// The results of one configuration.
#[derive(Debug)]
pub(super) struct Memo {
    entries: Mutex<Entries>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Entries {
    by_key: LruCache<Key, Entry>,
    size: usize,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::new(Entries {
                by_key: LruCache::new(MAX_ENTRIES),
                size: 0,
            }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(super) fn find(&self, key: &Key) -> Option<Entry> {
        let found = self.lock().by_key.get(key).cloned();
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn insert(&self, key: Key, entry: Entry) {
        if entry.size() <= MAX_ENTRY_SIZE {
            self.lock().insert(key, entry);
        }
    }

    pub(super) fn counts(&self) -> MemoCounts {
        MemoCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, key: Key, entry: Entry) {
        self.size += entry.size();
        if let Some((_, replaced)) = self.by_key.push(key, entry) {
            self.size -= replaced.size();
        }
        while self.size > MAX_SIZE {
            let Some((_, dropped)) = self.by_key.pop_lru() else {
                return;
            };
            self.size -= dropped.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::of(&number.to_le_bytes(), "sidecar")
    }

    fn overlay(length: usize) -> Entry {
        Entry::Overlay("x".repeat(length).into())
    }

    fn size(memo: &Memo) -> usize {
        let entries = memo.lock();
        let sizes = entries.by_key.iter().map(|(_, entry)| entry.size());
        assert_eq!(entries.size, sizes.sum::<usize>());
        entries.size
    }

    #[test]
    fn the_least_recently_used_result_is_dropped() {
        let memo = Memo::new();
        for number in 0..MAX_ENTRIES.get() {
            memo.insert(key(number), overlay(number % 7));
        }
        assert_eq!(memo.find(&key(0)), Some(overlay(0)));
        memo.insert(key(MAX_ENTRIES.get()), Entry::OfOnePod);
        assert_eq!(memo.find(&key(0)), Some(overlay(0)));
        assert_eq!(memo.find(&key(1)), None);
        assert_eq!(memo.counts(), MemoCounts { hits: 2, misses: 1 });
        size(&memo);
    }

    #[test]
    fn large_results_do_not_need_more_memory() {
        let memo = Memo::new();
        for number in 0..100 {
            memo.insert(key(number), overlay(MAX_ENTRY_SIZE - OVERHEAD));
        }
        assert_eq!(size(&memo), MAX_SIZE);
        memo.insert(key(100), overlay(MAX_ENTRY_SIZE));
        assert_eq!(memo.find(&key(100)), None);
        assert_eq!(size(&memo), MAX_SIZE);
    }

    #[test]
    fn an_equal_key_replaces_its_result() {
        let memo = Memo::new();
        memo.insert(key(1), overlay(100));
        memo.insert(key(1), overlay(10));
        assert_eq!(size(&memo), 10 + OVERHEAD);
    }

    #[test]
    fn the_template_is_part_of_the_key() {
        assert_ne!(Key::of(b"{}", "a"), Key::of(b"{}", "b"));
        assert_eq!(Key::of(b"{}", "a"), Key::of(b"{}", "a"));
    }
}
