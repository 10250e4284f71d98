//! Hosts: their clocks, what runs on them, and the handle that a program has on its own host.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use sheetbend_core::rng::Rng;
use sheetbend_core::time::Timestamp;
use sheetbend_runtime::{BoxFuture, MemNetwork, Runtime};

use crate::disk::Disk;
use crate::net::{ConnectionKey, TcpConfig, TcpListener, TcpStream, UdpSocket, listen, start_connect};
use crate::relay::RelayState;
use crate::runtime::HostRuntime;
use crate::state::{Shared, State};

/// The first port that is given to those who do not care.
const FIRST_PORT: u16 = 49_152;

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) u32);

impl HostId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Running,
    /// Its programs are stopped; its kernel runs.
    Paused,
    /// All of it is stopped; what is sent to it is lost.
    Suspended,
    Crashed,
}

/// What a host runs, again after every crash.
pub(crate) type Program = Arc<dyn Fn(Host) -> BoxFuture<'static, ()> + Send + Sync>;

/// A clock that may run fast or slow, and be set forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The world's time at which `local` was right.
    base: u64,
    local: u64,
    /// Parts per million by which it runs fast; negative when it is slow.
    skew: i64,
}

impl Clock {
    pub(crate) fn new(local: u64) -> Clock {
        Clock {
            base: 0,
            local,
            skew: 0,
        }
    }

    pub(crate) fn at(&self, world: u64) -> u64 {
        let passed = i128::from(world.saturating_sub(self.base));
        let local = passed + (passed * i128::from(self.skew)).div_euclid(1_000_000);
        self.local.saturating_add(u64::try_from(local).unwrap_or(0))
    }

    /// The first moment of the world at which this clock shows `local` or more.
    pub(crate) fn when(&self, local: u64) -> u64 {
        let wait = u128::from(local.saturating_sub(self.local));
        let rate = u128::try_from(1_000_000 + self.skew).unwrap_or(1).max(1);
        let world = (wait * 1_000_000).div_ceil(rate);
        let mut at = self.base.saturating_add(u64::try_from(world).unwrap_or(u64::MAX));
        while at < u64::MAX && self.at(at) < local {
            at += 1;
        }
        at
    }

    pub(crate) fn step(&mut self, world: u64, by: Duration) {
        self.local = self.at(world).saturating_add(by.as_nanos() as u64);
        self.base = world;
    }

    pub(crate) fn set_skew(&mut self, world: u64, ppm: i64) {
        self.local = self.at(world);
        self.base = world;
        self.skew = ppm.clamp(-900_000, 1_000_000_000);
    }

    /// The clock stood still since `since`.
    pub(crate) fn resume(&mut self, since: u64, world: u64) {
        self.local = self.at(since);
        self.base = world;
    }
}

pub(crate) struct HostState {
    pub(crate) name: String,
    pub(crate) power: Power,
    pub(crate) since: u64,
    pub(crate) incarnation: u32,
    pub(crate) clock: Clock,
    pub(crate) tcp: TcpConfig,
    pub(crate) program: Option<Program>,
    pub(crate) rng: Rng,
    pub(crate) mem: MemNetwork,
    pub(crate) disk: Disk,
    pub(crate) relay: RelayState,
    /// Connections whose timers were due while the host was suspended.
    pub(crate) held_connections: Vec<ConnectionKey>,
    pub(crate) held_timers: Vec<u32>,
    port: u16,
}

impl HostState {
    pub(crate) fn new(name: &str, mut rng: Rng, clock: Clock) -> HostState {
        let disk = Disk::new(rng.fork("disk"));
        HostState {
            name: name.to_owned(),
            power: Power::Running,
            since: 0,
            incarnation: 0,
            clock,
            tcp: TcpConfig::default(),
            program: None,
            rng,
            mem: MemNetwork::new(),
            disk,
            relay: RelayState::default(),
            held_connections: Vec::new(),
            held_timers: Vec::new(),
            port: FIRST_PORT - 1,
        }
    }

    /// Its kernel takes packets in.
    pub(crate) fn hears(&self) -> bool {
        matches!(self.power, Power::Running | Power::Paused)
    }

    pub(crate) fn next_port(&mut self) -> u16 {
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        self.port
    }
}

impl State {
    pub(crate) fn find_host(&self, name: &str) -> Option<HostId> {
        let index = self.hosts.iter().position(|host| host.name == name)?;
        Some(HostId(index as u32))
    }

    /// The addresses that a name stands for, as `host` sees it: `name`, `name.network`, or an address.
    pub(crate) fn resolve(&self, host: HostId, name: &str) -> io::Result<Vec<Ipv4Addr>> {
        if let Ok(ip) = name.parse::<Ipv4Addr>() {
            let own = self.net.of(host).next().map(|id| self.net.attachment(id).ip);
            return Ok(vec![if ip.is_loopback() { own.unwrap_or(ip) } else { ip }]);
        }
        if name == "localhost" {
            let own = self.net.of(host).map(|id| self.net.attachment(id).ip);
            return Ok(own.take(1).collect());
        }
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no host is called `{name}`"));
        let (target, only) = match (self.find_host(name), name.rsplit_once('.')) {
            (Some(target), _) => (target, None),
            (None, Some((name, network))) => {
                let network = self.net.find_network(network).ok_or_else(unknown)?;
                (self.find_host(name).ok_or_else(unknown)?, Some(network))
            }
            (None, None) => return Err(unknown()),
        };
        let reachable = |network: u16| self.net.on(host, network).is_some();
        let all = self.net.of(target).map(|id| self.net.attachment(id));
        let fit = all.filter(|to| only.is_none_or(|only| to.network == only) && reachable(to.network));
        let ips: Vec<Ipv4Addr> = fit.map(|to| to.ip).collect();
        if ips.is_empty() { Err(unknown()) } else { Ok(ips) }
    }
}

/// A program's handle on the host that it runs on.
#[derive(Clone)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: HostId,
    pub(crate) incarnation: u32,
}

impl Host {
    /// The runtime of this host, for the handles of sheetbend: the one line that differs from production.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(HostRuntime::new(self.clone()))
    }

    /// Says something in the trace.
    pub fn note(&self, text: &str) {
        self.shared.with(|state| {
            let State {
                trace, hosts, now, ..
            } = state;
            trace.note(*now, &hosts[self.id.index()].name, text);
        });
    }

    /// Which host it is.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.shared
            .with(|state| state.hosts[self.id.index()].name.clone())
    }

    /// How often it has crashed.
    pub fn crashes(&self) -> u32 {
        self.incarnation
    }

    /// What its clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.shared.with(|state| state.local_now(self.id)))
    }

    /// The world's own time, which no program of a real host can see: for whoever measures.
    pub fn world_now(&self) -> Timestamp {
        Timestamp::from_nanos(self.shared.with(|state| state.now))
    }

    /// Runs a task on this host until it ends or the host crashes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(self.id, self.incarnation, Box::pin(task));
    }

    /// Waits.
    pub async fn sleep(&self, time: Duration) {
        let mut timer = self.runtime().timer(self.now() + time);
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
    }

    /// Says that a program on this host came forward. A task that runs again and again without anybody coming
    /// forward has stalled; one that comes forward when it is run although nobody woke it had lost its wake-up.
    pub fn progressed(&self) {
        self.shared.with(|state| state.progress += 1);
    }

    /// A fresh generator for what a program does at random.
    pub fn rng(&self) -> Rng {
        self.shared
            .with(|state| state.hosts[self.id.index()].rng.fork("program"))
    }

    /// The addresses of a name as this host sees it: `name`, `name.network`, or a literal.
    ///
    /// # Errors
    /// `NotFound` when there is no such host, or no network leads there.
    pub fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let ips = self.shared.with(|state| state.resolve(self.id, name))?;
        Ok(ips
            .into_iter()
            .map(|ip| SocketAddrV4::new(ip, port).into())
            .collect())
    }

    /// Connects by TCP to the first address of `name` that answers.
    ///
    /// # Errors
    /// As the last address tried says.
    pub async fn connect_tcp(&self, name: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::NotFound.into();
        for ip in self.shared.with(|state| state.resolve(self.id, name))? {
            match start_connect(self.shared.clone(), self.id, SocketAddrV4::new(ip, port)).await {
                Ok(socket) => return Ok(TcpStream::new(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Listens by TCP on every interface; port 0 takes any free one.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn listen_tcp(&self, port: u16) -> io::Result<TcpListener> {
        listen(&self.shared, self.id, &self.name(), port).map(TcpListener::new)
    }

    /// Binds a UDP socket on every interface; port 0 takes any free one.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn bind_udp(&self, port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind(&self.shared, self.id, (Ipv4Addr::UNSPECIFIED, port).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_fast_and_slow_and_step() {
        let mut clock = Clock::new(1000);
        assert_eq!(clock.at(500), 1500);
        clock.set_skew(500, 100_000);
        assert_eq!(clock.at(1500), 2600, "a tenth faster");
        assert_eq!(clock.when(2600), 1500);
        clock.step(1500, Duration::from_nanos(400));
        assert_eq!(clock.at(1500), 3000);
        clock.set_skew(1500, -500_000);
        assert_eq!(clock.at(2500), 3500);
        for local in 3000..3600 {
            let at = clock.when(local);
            assert!(clock.at(at) >= local);
            assert!(at == 1500 || clock.at(at - 1) < local);
        }
    }

    #[test]
    fn a_suspended_clock_stands() {
        let mut clock = Clock::new(0);
        clock.resume(100, 5000);
        assert_eq!(clock.at(5000), 100);
        assert_eq!(clock.at(5010), 110);
    }
}
