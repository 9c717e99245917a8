//! Who is connected: how many, from where, and whether anything happens on each connection.
//!
//! A server runs out of file descriptors and memory long before a network runs out of clients. So the number of
//! connections is bounded, in total and for each address. A newcomer is always let in: at a bound, the connection that has
//! been idle for longest is closed for it, one that never showed good credentials before one that did. A client that opens
//! a thousand connections therefore closes its own, and those who work are not affected.

use crate::http::bodies;
use axum::{
    body::Body,
    http::{Request, Response},
};
use axum_server::accept::Accept;
use futures::task::AtomicWaker;
use hyper::body::Incoming;
use std::{
    collections::HashMap,
    future::{Future, Ready},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tower::Service;

/// Connections in total, unless configured otherwise: 2,000 agents with one each, and as many clients.
pub const MOST_CONNECTIONS: usize = 4096;

/// A new connection must send its first request, headers included, within this time.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// A connection on which no request begins and no answer is taken for so long is closed. Longer than any request may take
/// and than the pause between two signs of life on a stream of events.
const IDLE: Duration = Duration::from_secs(75);

/// How often idle connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// File descriptors that are kept for the store, its journal, log and outgoing connections.
const OTHER_FILES: usize = 128;

/// `most`, or fewer where this process may not open so many files.
pub(crate) fn within_the_limit_of_files(most: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(files) = soft_limit_of_files(&limits) else { return most };
    let possible = files.saturating_sub(OTHER_FILES).max(2);
    if possible < most {
        tracing::warn!(
            files,
            connections = possible,
            "this process may open few files (ulimit -n): fewer connections than configured"
        );
    }
    most.min(possible)
}

/// From the text of `/proc/self/limits`; `None` where there is no limit or no such line.
fn soft_limit_of_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    address: IpAddr,
    /// When a request last began or a part of an answer was last taken, in milliseconds since the registry was made.
    active_at: AtomicU64,
    /// Good credentials came over it.
    trusted: AtomicBool,
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    /// Notes that good credentials came over it.
    pub fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// An error once it is closed; what waits on it is woken then.
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.waker.register(context.waker());
        match self.closed.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was idle")),
            false => Ok(()),
        }
    }

    /// Worth less than all with a greater key.
    fn worth(&self) -> (bool, u64) {
        (self.trusted.load(Ordering::Relaxed), self.active_at.load(Ordering::Relaxed))
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    since: Instant,
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: HashMap<u64, Arc<Connection>>,
    of_address: HashMap<IpAddr, usize>,
}

impl Connections {
    /// At most `most` in total, and half as many from one address.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), most: most.max(2), open: Mutex::default() })
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open().all.len()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    /// Lets a new connection in; closes another one where there are too many.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Registered {
        let mut open = self.open();
        let of_address = open.of_address.get(&address).copied().unwrap_or_default();
        let victim = if of_address >= self.most / 2 {
            open.least(|connection| connection.address == address)
        } else if open.all.len() >= self.most {
            open.least(|_| true)
        } else {
            None
        };
        if let Some(id) = victim {
            open.remove(id);
        }
        let connection = Arc::new(Connection {
            address,
            active_at: AtomicU64::new(self.now()),
            trusted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let id = open.next;
        open.next += 1;
        open.all.insert(id, Arc::clone(&connection));
        *open.of_address.entry(address).or_default() += 1;
        Registered { id, connection, all: Arc::clone(self) }
    }

    /// Closes those that were idle for longer than `limit`.
    fn close_idle(&self, limit: Duration) {
        let before = self.now().saturating_sub(limit.as_millis() as u64);
        let mut open = self.open();
        let idle: Vec<u64> = open
            .all
            .iter()
            .filter(|(_, connection)| connection.active_at.load(Ordering::Relaxed) < before)
            .map(|(id, _)| *id)
            .collect();
        idle.into_iter().for_each(|id| open.remove(id));
    }

    /// Closes idle connections for as long as it is polled.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        loop {
            tick.tick().await;
            self.close_idle(IDLE);
        }
    }
}

impl Open {
    fn least(&self, among: impl Fn(&Connection) -> bool) -> Option<u64> {
        let candidates = self.all.iter().filter(|(_, connection)| among(connection));
        candidates.min_by_key(|(_, connection)| connection.worth()).map(|(id, _)| *id)
    }

    /// Closes it, if it is still open.
    fn remove(&mut self, id: u64) {
        let Some(connection) = self.all.remove(&id) else { return };
        connection.close();
        if let Some(count) = self.of_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&connection.address);
            }
        }
    }
}

/// A connection's place among all; given back when it ends.
struct Registered {
    id: u64,
    connection: Arc<Connection>,
    all: Arc<Connections>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.all.open().remove(self.id);
    }
}

/// Registers what is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Guard(pub Arc<Connections>);

impl<S> Accept<TcpStream, S> for Guard {
    type Stream = GuardedStream;
    type Service = GuardedService<S>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = stream.peer_addr().and_then(|peer| {
            stream.set_nodelay(true)?;
            let registered = self.0.admit(peer.ip().to_canonical());
            let activity = Activity { connection: Arc::clone(&registered.connection), all: Arc::clone(&self.0) };
            Ok((GuardedStream { stream, registered }, GuardedService { service, activity }))
        });
        std::future::ready(accepted)
    }
}

/// A stream that fails once its connection is to be closed.
pub(crate) struct GuardedStream {
    stream: TcpStream,
    registered: Registered,
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.registered.connection.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.registered.connection.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registered.connection.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Notes what happens on a connection.
#[derive(Clone)]
struct Activity {
    connection: Arc<Connection>,
    all: Arc<Connections>,
}

impl Activity {
    fn note(&self) {
        self.connection.active_at.store(self.all.now(), Ordering::Relaxed);
    }
}

/// Gives each request its [`Connection`], as an extension, and notes that it came.
#[derive(Clone)]
pub(crate) struct GuardedService<S> {
    service: S,
    activity: Activity,
}

impl<S> Service<Request<Incoming>> for GuardedService<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.activity.note();
        request.extensions_mut().insert(Arc::clone(&self.activity.connection));
        let activity = self.activity.clone();
        let answered = self.service.call(request);
        Box::pin(async move {
            let response = answered.await?;
            activity.note();
            Ok(response.map(|body| bodies::guarded(body, activity, Activity::note)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_longest_idle_and_least_trusted() {
        let all = Connections::new(4);
        let mut kept: Vec<_> = [1, 2, 3, 4].map(|n| all.admit(address(n))).into();
        for (registered, active_at) in kept.iter().zip([10, 5, 30, 40]) {
            registered.connection.active_at.store(active_at, Ordering::Relaxed);
        }
        kept[1].connection.trust();
        let closed = |kept: &[Registered]| -> Vec<bool> {
            kept.iter().map(|r| r.connection.closed.load(Ordering::Relaxed)).collect()
        };
        kept.push(all.admit(address(5)));
        assert_eq!(closed(&kept), [true, false, false, false, false], "the trusted one stays, though idle for longer");
        assert_eq!(all.count(), 4);
        kept.clear();
        assert_eq!((all.count(), all.open().of_address.len()), (0, 0));
    }

    #[test]
    fn an_address_with_too_many_closes_its_own() {
        let all = Connections::new(6);
        let good = all.admit(address(1));
        good.connection.active_at.store(0, Ordering::Relaxed);
        let many: Vec<_> = (0..20).map(|_| all.admit(address(2))).collect();
        assert_eq!(all.count(), 4, "three of the one, and the good one");
        assert!(!good.connection.closed.load(Ordering::Relaxed));
        drop((good, many));
    }

    #[test]
    fn the_limit_of_files_is_read_as_the_kernel_writes_it() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit_of_files(limits), Some(1024));
        assert_eq!(soft_limit_of_files("Max open files            unlimited            unlimited  files"), None);
        assert_eq!(soft_limit_of_files(""), None);
    }

    #[test]
    fn only_idle_connections_are_closed() {
        let all = Connections::new(4);
        let (idle, busy) = (all.admit(address(1)), all.admit(address(1)));
        busy.connection.active_at.store(1_000_000, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
        all.close_idle(Duration::from_millis(1));
        assert!(idle.connection.closed.load(Ordering::Relaxed) && !busy.connection.closed.load(Ordering::Relaxed));
    }
}
