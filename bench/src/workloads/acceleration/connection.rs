//! A connection of a process with itself.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use interceptor_testkit::bpf::sockmap::Accelerated;

/// Time limit of any operation, which may never complete if something is broken.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(2);

/// Both ends of a connection.
pub(super) struct Connection {
    /// The connecting end.
    pub(super) client: TcpStream,
    /// The accepting end.
    pub(super) server: TcpStream,
    _accelerated: Option<Accelerated>,
}

impl Connection {
    /// By TCP, in the calling thread's network namespace.
    pub(super) fn plain() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(IO_TIMEOUT))?;
            end.set_write_timeout(Some(IO_TIMEOUT))?;
        }
        Ok(Self {
            client,
            server,
            _accelerated: None,
        })
    }

    /// With socket acceleration, which bypasses TCP.
    pub(super) fn accelerated() -> Result<Self> {
        let plain = Self::plain()?;
        let accelerated = Accelerated::new(&plain.client, &plain.server)
            .context("this kernel has no socket acceleration")?;
        Ok(Self {
            _accelerated: Some(accelerated),
            ..plain
        })
    }

    /// The number of messages of `size` bytes that are sent and echoed per second.
    pub(super) fn exchange(&self, size: usize, milliseconds: u64) -> Result<f64> {
        let last = AtomicU64::new(u64::MAX);
        let respond = || -> Result<()> {
            let mut message = vec![0; size];
            for number in 0.. {
                (&self.server).read_exact(&mut message)?;
                (&self.server).write_all(&message)?;
                if number == last.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        };
        let request = || -> Result<f64> {
            let mut message = vec![1; size];
            let limit = Duration::from_millis(milliseconds);
            let start = Instant::now();
            let mut count = 0_u32;
            loop {
                let is_last = start.elapsed() > limit;
                if is_last {
                    last.store(count.into(), Ordering::SeqCst);
                }
                (&self.client).write_all(&message)?;
                (&self.client).read_exact(&mut message)?;
                count += 1;
                if is_last {
                    return Ok(f64::from(count) / start.elapsed().as_secs_f64());
                }
            }
        };
        together(respond, request)
    }

    /// The number of bytes per second that arrive if sent `size` at a time.
    pub(super) fn pour(&self, size: usize, milliseconds: u64) -> Result<f64> {
        let all = AtomicU64::new(u64::MAX);
        let start = Instant::now();
        let receive = || -> Result<()> {
            let mut buffer = vec![0; 1 << 16];
            let mut received = 0_u64;
            while received != all.load(Ordering::SeqCst) {
                received += u64::try_from((&self.server).read(&mut buffer)?)?;
            }
            Ok(())
        };
        let send = || -> Result<u64> {
            let message = vec![1; size];
            let limit = Duration::from_millis(milliseconds);
            let mut bytes = 0;
            loop {
                let is_last = start.elapsed() > limit;
                bytes += u64::try_from(size)?;
                if is_last {
                    all.store(bytes, Ordering::SeqCst);
                }
                (&self.client).write_all(&message)?;
                if is_last {
                    return Ok(bytes);
                }
            }
        };
        let bytes = together(receive, send)?;
        #[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
        let bytes = bytes as f64;
        Ok(bytes / start.elapsed().as_secs_f64())
    }
}

/// Runs both in parallel, and returns the result of the second.
fn together<T: Send>(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other()?;
        one.join().map_err(|_| anyhow!("it panicked"))??;
        Ok(other)
    })
}
