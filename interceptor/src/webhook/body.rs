//! The bodies of requests, and their limits.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, header::CONTENT_LENGTH},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a client may take to send its body. The API server waits 5 s for the whole response.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Size of all bodies in progress, in bytes. It is at least that of the largest body.
const MAX_TOTAL: usize = 32 << 20;
/// The unit in which the total is counted: a semaphore counts to 2³².
const UNIT: usize = 1 << 10;

/// The limits of bodies. Copies share the total.
#[derive(Clone)]
pub(super) struct Bodies {
    /// The size of one.
    max: usize,
    /// What is left of the total, in units.
    left: Arc<Semaphore>,
}

/// A body that counts until it is dropped.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Why a body is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than this.
    TooLarge(usize),
    /// All bodies together are too large.
    Overload,
    /// The client did not send it in time.
    Late,
    /// The client ended it, or the connection, too early.
    Incomplete,
}

impl fmt::Display for Unread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(formatter, "the body must be at most {max} bytes"),
            Self::Overload => formatter.write_str("too many admission reviews are in progress"),
            Self::Late => formatter.write_str("the body was not sent in time"),
            Self::Incomplete => formatter.write_str("the body is incomplete"),
        }
    }
}

impl Bodies {
    /// With this limit of one body.
    pub(super) fn new(max: usize) -> Self {
        let total = MAX_TOTAL.max(max);
        Self {
            max,
            left: Arc::new(Semaphore::new(units(total) as usize)),
        }
    }

    /// Reads a body.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Received, Unread> {
        let declared = declared(headers);
        let size = declared.unwrap_or(self.max);
        if size > self.max {
            // The response is the same if it does not arrive in time.
            let _read = timeout(TIMEOUT, discard(body, self.max.saturating_mul(2))).await;
            return Err(Unread::TooLarge(self.max));
        }
        // Not queued: a client that waits repeats its request when its timeout ends.
        let share = self.left.clone().try_acquire_many_owned(units(size));
        let share = share.map_err(|_none_left| Unread::Overload)?;
        match timeout(TIMEOUT, to_bytes(body, self.max)).await {
            Ok(Ok(bytes)) => Ok(Received {
                bytes,
                _share: share,
            }),
            // HTTP lets no body be larger than declared.
            Ok(Err(_)) if declared.is_some() => Err(Unread::Incomplete),
            Ok(Err(_)) => Err(Unread::TooLarge(self.max)),
            Err(_late) => Err(Unread::Late),
        }
    }
}

/// Reads a body that is too large, but not much too large: a client that still writes when its
/// connection is closed gets an error instead of the response.
async fn discard(body: Body, mut limit: usize) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        match limit.checked_sub(chunk.len()) {
            Some(left) => limit = left,
            None => return,
        }
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    async fn read(bodies: &Bodies, declared: Option<u64>, text: &str) -> Result<Received, Unread> {
        let mut headers = HeaderMap::new();
        if let Some(size) = declared {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        bodies.read(&headers, Body::from(text.to_owned())).await
    }

    #[tokio::test]
    async fn a_body_has_a_limit_with_and_without_a_declared_size() {
        let bodies = Bodies::new(4);
        for (declared, text) in [(Some(4), "1234"), (None, "1234"), (None, "")] {
            let received = read(&bodies, declared, text).await;
            assert_eq!(
                received.ok().map(|body| body.bytes),
                Some(Bytes::from(text))
            );
        }
        for (declared, text) in [(Some(5), "12345"), (None, "12345")] {
            let refused = read(&bodies, declared, text).await;
            assert_eq!(refused.err(), Some(Unread::TooLarge(4)));
        }
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_limit() {
        let half = MAX_TOTAL / 2;
        let bodies = Bodies::new(half + 1);
        let declared = Some(u64::try_from(half).unwrap());
        let [one, other] = [
            read(&bodies, declared, "1").await,
            read(&bodies, declared, "2").await,
        ];
        assert!(one.is_ok() && other.is_ok());
        let refused = read(&bodies, Some(1), "3").await;
        assert_eq!(refused.err(), Some(Unread::Overload));
        drop(one);
        assert!(read(&bodies, Some(1), "3").await.is_ok());
    }
}
