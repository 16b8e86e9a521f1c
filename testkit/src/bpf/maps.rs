//! Maps of the kernel.

use std::{io, os::fd::OwnedFd, path::Path};

use super::{Attributes, address, bpf, bpf_fd, info, number, open, pins};

/// An open map.
pub struct Map {
    fd: OwnedFd,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
}

impl Map {
    /// Interceptor's map of this name; `None` if there is none.
    pub fn of_interceptor(name: &str) -> io::Result<Option<Self>> {
        match Self::at(&pins::map(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            map => map.map(Some),
        }
    }

    /// The map that is pinned at `path`.
    pub fn at(path: &Path) -> io::Result<Self> {
        Self::new(open(path)?)
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        // struct bpf_map_info: type, id, key_size, value_size, max_entries, ...
        let info = info(&fd)?;
        let word = |index: usize| (info[index / 2] >> (32 * (index % 2))) & u64::from(u32::MAX);
        let size = |index| usize::try_from(word(index)).map_err(io::Error::other);
        Ok(Self {
            key_size: size(2)?,
            value_size: size(3)?,
            max_entries: u32::try_from(word(4)).map_err(io::Error::other)?,
            fd,
        })
    }

    /// A new array of one 64-bit number.
    pub(super) fn counter() -> io::Result<Self> {
        let mut attributes = Create {
            kind: ARRAY,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
        };
        Self::new(bpf_fd(MAP_CREATE, &mut attributes)?)
    }

    /// A new map of one program, to be called.
    pub(super) fn of_programs() -> io::Result<Self> {
        let mut attributes = Create {
            kind: PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
        };
        Self::new(bpf_fd(MAP_CREATE, &mut attributes)?)
    }

    /// A new map of one socket.
    pub(super) fn of_sockets() -> io::Result<Self> {
        let mut attributes = Create {
            kind: SOCKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
        };
        Self::new(bpf_fd(MAP_CREATE, &mut attributes)?)
    }

    /// Its file descriptor, for a program to refer to.
    pub(super) const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The size of a key in bytes.
    #[must_use]
    pub const fn key_size(&self) -> usize {
        self.key_size
    }

    /// The size of a value in bytes.
    #[must_use]
    pub const fn value_size(&self) -> usize {
        self.value_size
    }

    /// The maximum number of entries.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_size];
        let mut key = self.checked(key)?;
        let mut attributes = Element {
            map: number(&self.fd),
            padding: 0,
            key: address(&mut key),
            value: address(&mut value),
            flags: 0,
        };
        match bpf(MAP_LOOKUP_ELEM, &mut attributes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(|_| Some(value)),
        }
    }

    /// Sets the value of `key`. Not for per-CPU maps.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut key = self.checked(key)?;
        let mut value = value.to_vec();
        if value.len() != self.value_size {
            return Err(io::Error::other("a value of another size"));
        }
        let mut attributes = Element {
            map: number(&self.fd),
            padding: 0,
            key: address(&mut key),
            value: address(&mut value),
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
    }

    /// Removes the entry of `key`.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        let mut key = self.checked(key)?;
        let mut attributes = Element {
            map: number(&self.fd),
            padding: 0,
            key: address(&mut key),
            value: 0,
            flags: 0,
        };
        bpf(MAP_DELETE_ELEM, &mut attributes).map(drop)
    }

    /// Every key, unless other processes change the map at the same time.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut next = vec![0; self.key_size];
        // If another process removes the current key, the kernel starts again.
        while keys.len() <= self.max_entries as usize {
            let last = keys.last_mut();
            let mut attributes = Element {
                map: number(&self.fd),
                padding: 0,
                key: last.map_or(0, |last| address(last)),
                value: address(&mut next),
                flags: 0,
            };
            match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                result => result?,
            };
            keys.push(next.clone());
        }
        Ok(keys)
    }

    /// Adds the entries of `keys`, with values of zeroes, until the map is full. Returns the number
    /// of added entries.
    pub fn fill(&self, keys: &[u8]) -> io::Result<u32> {
        let count = keys.len() / self.key_size;
        let mut keys = keys.to_vec();
        let mut values = vec![0; count * self.value_size];
        let mut attributes = Batch {
            start: 0,
            end: 0,
            keys: address(&mut keys),
            values: address(&mut values),
            count: u32::try_from(count).map_err(io::Error::other)?,
            map: number(&self.fd),
            element_flags: 0,
            flags: 0,
        };
        match bpf(MAP_UPDATE_BATCH, &mut attributes) {
            // Hash tables and tries.
            Err(error)
                if ![Some(libc::E2BIG), Some(libc::ENOSPC)].contains(&error.raw_os_error()) =>
            {
                Err(error)
            }
            _ => Ok(attributes.count),
        }
    }

    fn checked(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        if key.len() == self.key_size {
            return Ok(key.to_vec());
        }
        let (is, expected) = (key.len(), self.key_size);
        Err(io::Error::other(format!(
            "a key of {is} bytes instead of {expected}"
        )))
    }
}

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const MAP_UPDATE_BATCH: u32 = 26;

const ARRAY: u32 = 2;
const PROG_ARRAY: u32 = 3;
const SOCKMAP: u32 = 15;

#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

// SAFETY: no addresses.
unsafe impl Attributes for Create {}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

// SAFETY: created in this file only, with buffers of the map's sizes.
unsafe impl Attributes for Element {}

#[repr(C)]
struct Batch {
    start: u64,
    end: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

// SAFETY: created in this file only, with the true number of keys and values.
unsafe impl Attributes for Batch {}
