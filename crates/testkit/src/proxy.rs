//! A TCP proxy in front of one server that breaks the network on command. It reads the frames of MongoDB's protocol, so
//! that it can also carry a command over and lose the answer.

use crate::Error;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Whole,
    /// Connections are ended, new ones too: as when a host is down or its name is gone.
    Cut,
    /// Nothing passes, and nobody is told: as when packets are dropped.
    Silent,
    /// Only what clients send passes.
    ToServer,
    /// Only what the server sends passes.
    ToClient,
    /// Every message takes so long more.
    Slow(Duration),
    /// That too, and each direction carries no more than so many bytes a second, of all connections together.
    Narrow(Duration, u32),
}

/// The longest message of the protocol.
const LONGEST: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct Plan {
    /// Commands whose answer is lost next.
    lose: Vec<String>,
    /// How many were.
    lost: u64,
    /// Commands whose connection goes silent next, and whether the server still gets the command.
    silence: Vec<(String, bool)>,
    /// How many connections went silent.
    silenced: u64,
    /// A message to the server that has these bytes in it isn't carried over; its connection stays open.
    hold: Vec<u8>,
}

/// Until when each direction of a narrow link is taken.
type Taken = Arc<Mutex<[Option<Instant>; 2]>>;

/// A running proxy; ends when dropped.
pub struct Proxy {
    addr: SocketAddr,
    network: watch::Sender<Network>,
    resets: watch::Sender<u64>,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free loopback port for connections to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (network, resets) = (watch::Sender::new(Network::Whole), watch::Sender::new(0));
        let plan = Arc::<Mutex<Plan>>::default();
        let held = watch::Sender::new(0);
        let link = Link {
            target,
            network: network.clone(),
            resets: resets.clone(),
            plan: Arc::clone(&plan),
            held: held.clone(),
            taken: Taken::default(),
        };
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(link.clone().carry(client));
            }
        });
        Ok(Self { addr, network, resets, plan, held, task })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Ends all connections that there are; new ones pass.
    pub fn reset(&self) {
        self.resets.send_modify(|n| *n += 1);
    }

    /// Carries the next command of this name to the server and ends the connection instead of bringing the answer.
    pub fn lose_answer_to(&self, command: &str) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).lose.push(command.to_owned());
    }

    /// Makes the connection that carries the next command of this name go silent: it stays open and nothing passes any
    /// more, as when a firewall has forgotten it. With `reaches` the server still gets the command.
    pub fn silence_connection_of(&self, command: &str, reaches: bool) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).silence.push((command.to_owned(), reaches));
    }

    /// How many connections went silent.
    pub fn silenced(&self) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).silenced
    }

    /// Holds every message to the server that has `marker` in it: the server seems to work at it until it dies. Nothing
    /// is held for an empty marker.
    pub fn hold_messages_with(&self, marker: &[u8]) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).hold = marker.to_vec();
    }

    /// Waits until so many messages were held, since the beginning.
    pub async fn held(&self, count: u64) {
        let mut held = self.held.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(60), held.wait_for(|n| *n >= count));
        waited.await.expect("a message with the marker comes in time").expect("the proxy runs");
    }

    /// How many messages were held.
    pub fn held_so_far(&self) -> u64 {
        *self.held.borrow()
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Network::Cut);
    }
}

#[derive(Clone)]
struct Link {
    target: SocketAddr,
    network: watch::Sender<Network>,
    resets: watch::Sender<u64>,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<u64>,
    taken: Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Link {
    async fn carry(self, client: TcpStream) {
        let (mut network, mut resets) = (self.network.subscribe(), self.resets.subscribe());
        if *network.borrow_and_update() == Network::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(self.target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        // Set while the answer on its way is to be lost.
        let losing = watch::Sender::new(false);
        let silent = watch::Sender::new(false);
        let up = async {
            while let Some(message) = read(&mut from_client).await {
                let silence = command_of(&message).and_then(|name| self.silence_of(name));
                if silence.is_some() {
                    silent.send_replace(true);
                }
                if silence == Some(false) {
                    return std::future::pending().await;
                }
                if command_of(&message).is_some_and(|name| self.is_to_lose(name)) {
                    losing.send_replace(true);
                }
                if self.is_to_hold(&message) {
                    self.held.send_modify(|n| *n += 1);
                    std::future::pending::<()>().await;
                }
                self.pass(Direction::ToServer, message.len()).await;
                if to_server.write_all(&message).await.is_err() {
                    return;
                }
                if *silent.borrow() {
                    return std::future::pending().await;
                }
            }
        };
        let down = async {
            while let Some(message) = read(&mut from_server).await {
                if *silent.borrow() {
                    return std::future::pending().await;
                }
                if *losing.borrow() {
                    self.plan.lock().unwrap_or_else(PoisonError::into_inner).lost += 1;
                    return;
                }
                self.pass(Direction::ToClient, message.len()).await;
                if to_client.write_all(&message).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            _ = network.wait_for(|now| *now == Network::Cut) => {}
            _ = resets.changed() => {}
        }
    }

    fn is_to_hold(&self, message: &[u8]) -> bool {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        !plan.hold.is_empty() && message.windows(plan.hold.len()).any(|bytes| bytes == plan.hold)
    }

    fn is_to_lose(&self, command: &str) -> bool {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let found = plan.lose.iter().position(|name| name == command);
        found.map(|index| plan.lose.remove(index)).is_some()
    }

    /// Whether the connection goes silent at this command, and if so whether the server still gets it.
    fn silence_of(&self, command: &str) -> Option<bool> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let found = plan.silence.iter().position(|(name, _)| name == command)?;
        plan.silenced += 1;
        Some(plan.silence.remove(found).1)
    }

    /// Waits until the network lets a message of this length through.
    async fn pass(&self, direction: Direction, length: usize) {
        let mut network = self.network.subscribe();
        let open = |now: &Network| match now {
            Network::Whole | Network::Slow(_) | Network::Narrow(..) => true,
            Network::ToServer => direction == Direction::ToServer,
            Network::ToClient => direction == Direction::ToClient,
            Network::Cut | Network::Silent => false,
        };
        match network.wait_for(open).await.map(|now| *now) {
            Ok(Network::Slow(delay)) => tokio::time::sleep(delay).await,
            Ok(Network::Narrow(delay, rate)) => {
                let through = self.take(direction, Duration::from_secs_f64(length as f64 / f64::from(rate)));
                tokio::time::sleep_until((through + delay).into()).await;
            }
            _ => {}
        }
    }

    /// When a message that takes the link for so long is through, after those before it.
    fn take(&self, direction: Direction, time: Duration) -> Instant {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = &mut taken[direction as usize];
        let now = Instant::now();
        let through = taken.map_or(now, |until| until.max(now)) + time;
        *taken = Some(through);
        through
    }
}

/// One message; `None` at the end.
async fn read(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await.ok()?;
    let length = u32::from_le_bytes(head) as usize;
    if !(16..=LONGEST).contains(&length) {
        return None;
    }
    let mut message = head.to_vec();
    message.resize(length, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// The command in an `OP_MSG`: the name of its body's first field.
fn command_of(message: &[u8]) -> Option<&str> {
    const OP_MSG: [u8; 4] = 2013_i32.to_le_bytes();
    // Header, flags, the kind of the first section (a body), the body's length, the field's type.
    let body = message.get(16 + 4..)?;
    if message.get(12..16)? != OP_MSG || *body.first()? != 0 {
        return None;
    }
    let name = body.get(1 + 4 + 1..)?;
    let end = name.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&name[..end]).ok()
}
