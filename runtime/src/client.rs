//! Making sessions with a server.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
#[cfg(feature = "proxy")]
use sheetbend_core::carrier::proxy::{ProxyRules, VariableError};
#[cfg(feature = "tls")]
use sheetbend_core::carrier::tls::{ClientTls, Trust};
use sheetbend_core::client::RedirectLimit;
use sheetbend_core::client::connector::{Config as ConnectorConfig, Connector, Kind, Mode};
use sheetbend_core::handshake::Security;
use sheetbend_core::rng::Rng;
use sheetbend_core::session::{self, Cause, ClassError, ClassSettings, Config, PathMode};
use sheetbend_core::wire::Class;

use crate::address::{Address, AddressError, Scheme, ToAddress};
use crate::dial::Dialer;
use crate::driver::{Driver, Role};
use crate::endpoint::{Endpoint, security};
use crate::intake::RequestLimits;
use crate::known::Known;
use crate::reach::Settings;
use crate::redirect::{Guide, RedirectRule};
use crate::rt::Runtime;
use crate::session::Session;
use crate::shared::{Owner, Shared, State};
use crate::wait::wait_for;
use crate::waits::Interest;

/// The longest request or answer by default, in bytes.
pub const DEFAULT_MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Why no session could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The builder was given no endpoint.
    #[error("no endpoint to connect to")]
    NoEndpoint,
    /// Every endpoint was tried and failed.
    #[error("no endpoint can be reached: {}", list(.0))]
    Unreachable(
        /// Each endpoint, and what went wrong there.
        Vec<(String, String)>,
    ),
    /// The session ended before it was established.
    #[error("the session was refused or failed: {0:?}")]
    Failed(Cause),
    /// An address is malformed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is nobody to vouch for a server behind TLS.
    #[error("no server can be trusted: {0}")]
    Trust(
        /// What is wrong.
        String,
    ),
}

pub(crate) fn list(failures: &[(String, String)]) -> String {
    failures
        .iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect::<Vec<_>>()
        .join("; ")
}

/// Collects what a client needs to know.
#[derive(Clone, Default)]
pub struct ClientBuilder {
    endpoints: Vec<Address>,
    config: Option<Arc<Config>>,
    connector: Option<ConnectorConfig>,
    standby: Option<usize>,
    memory: Option<std::path::PathBuf>,
    max_request: Option<usize>,
    max_unaccepted: Option<usize>,
    keep_trying: bool,
    redirects: RedirectRule,
    redirect_limit: RedirectLimit,
    carriers: Arc<Settings>,
    #[cfg(feature = "tls")]
    trust: Option<Trust>,
    #[cfg(all(feature = "proxy", feature = "tls"))]
    proxy_trust: Option<Trust>,
}

impl ClientBuilder {
    /// Adds an endpoint of the server. Those added first are preferred.
    ///
    /// `sheetbend://host:port` is whatever works there: TLS and WebSocket over it are tried first, TCP and WebSocket
    /// without it once these have failed or two seconds have passed; but not where TLS is spoken and the certificate is
    /// not trusted: that is an error. The session keeps to the security of its first path. Where an attacker may block TLS that is no protection: say whom to trust (`ClientBuilder::trust`), or set
    /// [`Config::security_floor`], and only what is encrypted is tried.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn endpoint(mut self, address: impl ToAddress) -> Result<ClientBuilder, AddressError> {
        self.endpoints.push(address.to_address()?);
        Ok(self)
    }

    /// Puts an endpoint before all others.
    pub(crate) fn preferred(mut self, address: Address) -> ClientBuilder {
        self.endpoints.insert(0, address);
        self
    }

    /// The session's configuration, classes included. Without a security floor in it, the weakest of the
    /// endpoints' is the floor.
    pub fn config(mut self, config: Config) -> ClientBuilder {
        self.config = Some(Arc::new(config));
        self
    }

    /// Sets a class up: its name, urgency, way of delivery and limits.
    ///
    /// # Errors
    /// When another class has the name, or a setting is out of its range.
    pub fn class(mut self, class: Class, settings: ClassSettings) -> Result<ClientBuilder, ClassError> {
        let config = self.config.get_or_insert_with(|| DEFAULTS.0.clone());
        Arc::make_mut(config).class(class, settings)?;
        Ok(self)
    }

    /// Which of the places that a server names instead of itself are gone to: when it is being drained, or
    /// knows where a session lives. By default those of a scheme and host that were configured.
    pub fn redirects(mut self, rule: RedirectRule) -> ClientBuilder {
        self.redirects = rule;
        self
    }

    /// How many of them in what time; 5 in a minute by default.
    pub fn redirect_limit(mut self, limit: RedirectLimit) -> ClientBuilder {
        self.redirect_limit = limit;
        self
    }

    /// When endpoints are tried, and tried again. Its number of endpoints and mode are filled in.
    pub fn connector(mut self, config: ConnectorConfig) -> ClientBuilder {
        self.connector = Some(config);
        self
    }

    /// Keeps what is learnt about endpoints in this file: which are broken on which network, and which worked last, so
    /// that the next process begins with that. A file that cannot be read or written is as good as none.
    pub fn remember(mut self, file: impl Into<std::path::PathBuf>) -> ClientBuilder {
        self.memory = Some(file.into());
        self
    }

    /// How many paths are kept up in standby mode; by default two, if there are as many endpoints.
    pub fn standby_paths(mut self, count: usize) -> ClientBuilder {
        self.standby = Some(count);
        self
    }

    /// The longest request or answer taken, in bytes.
    pub fn max_request(mut self, bytes: usize) -> ClientBuilder {
        self.max_request = Some(bytes);
        self
    }

    /// How many bytes of whole requests may wait for [`Session::accept_request`] in one session; the last
    /// of them may exceed it. Beyond it no request is read on, so that flow control holds the peer back.
    pub fn max_unaccepted(mut self, bytes: usize) -> ClientBuilder {
        self.max_unaccepted = Some(bytes);
        self
    }

    /// Goes on trying while no session stands yet, instead of giving up once every endpoint failed; until
    /// the connector's backoff has reached its limit, if it has one.
    pub fn keep_trying(mut self, yes: bool) -> ClientBuilder {
        self.keep_trying = yes;
        self
    }

    /// The `Origin` that is told to WebSocket and HTTP servers which want one; none by default.
    #[cfg(feature = "http")]
    pub fn origin(mut self, origin: impl Into<String>) -> ClientBuilder {
        Arc::make_mut(&mut self.carriers).origin = Some(origin.into());
        self
    }

    /// What may be chosen about QUIC.
    #[cfg(feature = "quic")]
    pub fn quic(mut self, settings: sheetbend_core::carrier::quic::QuicSettings) -> ClientBuilder {
        Arc::make_mut(&mut self.carriers).quic = settings;
        self
    }

    /// Whom to believe to be the server behind `tls://` and `wss://`; by default those whom one of the
    /// platform's certificate authorities vouches for.
    #[cfg(feature = "tls")]
    pub fn trust(mut self, trust: Trust) -> ClientBuilder {
        self.trust = Some(trust);
        self
    }

    /// A proxy ends TLS before the server: JOINs are not bound to the TLS connection, as the server could not
    /// check that (PROTOCOL 6.2). It must be told, too: [`crate::ServerBuilder::behind_tls_proxy`].
    #[cfg(feature = "tls")]
    pub fn through_tls_proxy(mut self, yes: bool) -> ClientBuilder {
        Arc::make_mut(&mut self.carriers).binds = !yes;
        self
    }

    /// What leads to endpoints that are not reached straight: a proxy for all of them, or rules. Unix sockets are
    /// always reached straight. None by default, whatever the environment says.
    #[cfg(feature = "proxy")]
    pub fn proxies(mut self, rules: ProxyRules) -> ClientBuilder {
        Arc::make_mut(&mut self.carriers).proxies = rules;
        self
    }

    /// Whom to believe to be a proxy behind `https://`; by default those whom one of the platform's certificate
    /// authorities vouches for.
    #[cfg(all(feature = "proxy", feature = "tls"))]
    pub fn proxy_trust(mut self, trust: Trust) -> ClientBuilder {
        self.proxy_trust = Some(trust);
        self
    }

    /// The proxies that the environment names, as [`ProxyRules::from_variables`] reads it: `HTTPS_PROXY`,
    /// `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// A variable that cannot be used.
    #[cfg(feature = "proxy")]
    pub fn proxies_from_environment(self) -> Result<ClientBuilder, VariableError> {
        let rules = ProxyRules::from_variables(|name| std::env::var(name).ok())?;
        Ok(self.proxies(rules))
    }

    /// A client on the given runtime.
    ///
    /// # Errors
    /// When there is no endpoint, or one of TLS and nobody to vouch for it.
    pub fn build(mut self, runtime: Arc<dyn Runtime>) -> Result<Client, ConnectError> {
        let last_resorts = self.expand(&*runtime);
        let weakest = self.endpoints.iter().map(security).min();
        let weakest = weakest.ok_or(ConnectError::NoEndpoint)?;
        #[cfg(feature = "tls")]
        self.make_tls(&*runtime)?;
        #[cfg(all(feature = "proxy", feature = "tls"))]
        self.make_proxy_tls(&*runtime)?;
        let config = self.config.take().unwrap_or_else(|| DEFAULTS.0.clone());
        let connector = match self.connector.take() {
            None if self.endpoints.len() == 1 => DEFAULTS.1.clone(),
            own => {
                let mut own = own.unwrap_or_else(|| ConnectorConfig::new(0));
                own.endpoints = self.endpoints.len();
                own.last_resorts = last_resorts.unwrap_or(own.last_resorts);
                own.kinds = kinds(&self.endpoints);
                Arc::new(own)
            }
        };
        // Of what is open the first path decides, and no later one is weaker (PROTOCOL 6.5).
        let open = last_resorts.is_some() && config.security_floor.is_none();
        let floor = config.security_floor.unwrap_or(weakest);
        let guide = Guide::new(
            self.redirects.clone(),
            self.redirect_limit,
            self.endpoints.clone(),
            floor,
        );
        let known = Arc::new(Known::new(self.memory.clone()));
        Ok(Client {
            floor: (!open).then_some(floor),
            settings: self,
            guide: Arc::new(guide),
            config,
            connector,
            runtime,
            current: Mutex::new(None),
            known,
        })
    }

    /// Puts in place of `sheetbend://` what it stands for, what is not encrypted behind all others: how many these
    /// are, if there was such an address. Who says whom to trust, or sets a floor, wants none of them.
    fn expand(&mut self, runtime: &dyn Runtime) -> Option<usize> {
        let open = |address: &Address| {
            matches!(
                address,
                Address::Over {
                    scheme: Scheme::Any,
                    ..
                }
            )
        };
        if !self.endpoints.iter().any(open) {
            return None;
        }
        let floor = self.config.as_ref().and_then(|config| config.security_floor);
        let (sure, possible) = self.can_encrypt(runtime);
        let sure = sure || floor.is_some_and(|floor| floor > Security::Plain);
        let mut resorts = Vec::new();
        let mut expanded = Vec::new();
        for address in std::mem::take(&mut self.endpoints) {
            if !open(&address) {
                expanded.push(address);
                continue;
            }
            for one in address.alternatives() {
                match security(&one) > Security::Plain {
                    true if possible || sure => expanded.push(one),
                    false if !sure => resorts.push(one),
                    _ => {}
                }
            }
        }
        let count = resorts.len();
        expanded.append(&mut resorts);
        self.endpoints = expanded;
        Some(count)
    }

    /// Whether it was said whom to trust, and whether anybody can be.
    #[cfg(feature = "tls")]
    fn can_encrypt(&self, runtime: &dyn Runtime) -> (bool, bool) {
        let roots = || runtime.trusted_roots().is_ok_and(|roots| !roots.is_empty());
        (self.trust.is_some(), self.trust.is_some() || roots())
    }

    #[cfg(not(feature = "tls"))]
    fn can_encrypt(&self, _: &dyn Runtime) -> (bool, bool) {
        (false, false)
    }

    #[cfg(feature = "tls")]
    fn make_tls(&mut self, runtime: &dyn Runtime) -> Result<(), ConnectError> {
        let encrypted =
            |address: &Address| matches!(address, Address::Over { scheme, .. } if scheme.is_encrypted());
        if !self.endpoints.iter().any(encrypted) {
            return Ok(());
        }
        let tls = client_tls(self.trust.take(), runtime)?;
        Arc::make_mut(&mut self.carriers).tls = Some(tls);
        Ok(())
    }

    #[cfg(all(feature = "proxy", feature = "tls"))]
    fn make_proxy_tls(&mut self, runtime: &dyn Runtime) -> Result<(), ConnectError> {
        if self.carriers.proxies.has_encrypted() {
            let tls = client_tls(self.proxy_trust.take(), runtime)?;
            Arc::make_mut(&mut self.carriers).proxy_tls = Some(tls);
        }
        Ok(())
    }

    /// A session of a client made of this.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(self, runtime: Arc<dyn Runtime>) -> Result<Session, ConnectError> {
        self.build(runtime)?.connect().await
    }
}

/// What endpoints have in common: transports and hosts, numbered as they come.
fn kinds(endpoints: &[Address]) -> Vec<Kind> {
    let place = |at: Option<usize>, index: usize| u32::try_from(at.unwrap_or(index)).unwrap_or(u32::MAX);
    let host = |address: &Address| match address.socket() {
        Address::Tcp { host, .. } => Some(host),
        _ => None,
    };
    let kind = |(index, address): (usize, &Address)| {
        let mut known = endpoints.iter();
        let transport = known.position(|other| other.transport() == address.transport());
        let own = host(address);
        let same = endpoints
            .iter()
            .position(|other| own.is_some() && host(other) == own);
        Kind {
            transport: place(transport, index),
            host: place(same, index),
        }
    };
    endpoints.iter().enumerate().map(kind).collect()
}

/// TLS with those who are trusted: those of the platform, unless it was said whom.
#[cfg(feature = "tls")]
fn client_tls(trust: Option<Trust>, runtime: &dyn Runtime) -> Result<ClientTls, ConnectError> {
    let trust = match trust {
        Some(trust) => trust,
        None => {
            let roots = runtime.trusted_roots();
            let roots = roots.map_err(|error| ConnectError::Trust(error.to_string()))?;
            Trust::Roots(roots.into_iter().map(Into::into).collect())
        }
    };
    ClientTls::new(&trust).map_err(|error| ConnectError::Trust(error.to_string()))
}

/// The settings that most clients have, once in a process: for sessions, and for one endpoint.
static DEFAULTS: LazyLock<(Arc<Config>, Arc<ConnectorConfig>)> =
    LazyLock::new(|| (Arc::default(), Arc::new(ConnectorConfig::new(1))));

/// Makes sessions with one server, reachable at one or more endpoints.
pub struct Client {
    settings: ClientBuilder,
    guide: Arc<Guide>,
    config: Arc<Config>,
    connector: Arc<ConnectorConfig>,
    /// `None` where the first path decides.
    floor: Option<Security>,
    runtime: Arc<dyn Runtime>,
    current: Mutex<Option<Session>>,
    known: Arc<Known>,
}

impl Client {
    /// A builder with defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The machine is on another network than before, which has this name: that of a wireless network, the address of
    /// a gateway, or whatever tells it from others. What failed on the old one says nothing about this one, what is
    /// remembered of this one counts again, and every path is asked whether it still leads anywhere. For all
    /// sessions of this client. Until it is said otherwise the network is called `""`.
    pub fn network_changed(&self, network: &str) {
        self.known.network_changed(network);
    }

    /// Makes a new session and waits until it is established. From then on it reconnects by itself,
    /// within its resume timeout.
    ///
    /// # Errors
    /// When every endpoint failed (unless told to keep trying), or the server refused.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        let session = self.start_connecting();
        self.established(&session).await?;
        Ok(session)
    }

    /// Waits until a session stands, or it is known that it will not.
    async fn established(&self, session: &Session) -> Result<(), ConnectError> {
        let keep_trying = self.settings.keep_trying;
        wait_for(session.shared(), Interest::Lifecycle, |state: &mut State| {
            if let Some(Cause::GivenUp { .. }) = &state.end {
                return Some(Err(ConnectError::Unreachable(state.unreachable.clone())));
            }
            if let Some(cause) = &state.end {
                return Some(Err(ConnectError::Failed(cause.clone())));
            }
            if state.core.is_established() {
                return Some(Ok(()));
            }
            let given_up = state.exhausted && !keep_trying;
            given_up.then(|| Err(ConnectError::Unreachable(state.unreachable.clone())))
        })
        .await
    }

    /// Starts a session without waiting for it: what is queued goes out when it is established, the
    /// first of it with the handshake. It goes on trying.
    pub fn start_connecting(&self) -> Session {
        Session::new(self.start())
    }

    fn start(&self) -> Arc<Owner> {
        let now = self.runtime.now();
        let settings = &self.settings;
        let mut core = session::Session::client(self.config.clone(), self.runtime.seed(), now);
        if let Some(floor) = self.floor {
            core.require(floor);
        }
        core.follow_redirects(!matches!(settings.redirects, RedirectRule::Refuse));
        let limits = RequestLimits::new(settings.max_request, settings.max_unaccepted);
        let shared = Arc::new(Shared::new(Box::new(core), self.runtime.clone(), limits));
        let places = self.guide.places().into_iter().zip(0..);
        let endpoints: Vec<Endpoint> = places
            .map(|(address, rank)| {
                let learned = !settings.endpoints.contains(&address);
                Endpoint::new(address, rank, learned)
            })
            .collect();
        let mode = match self.config.mode {
            PathMode::Single => Mode::Single,
            PathMode::Standby | PathMode::Redundant => Mode::Standby {
                paths: settings.standby.unwrap_or(settings.endpoints.len().min(2)),
            },
        };
        let rng = Rng::from_seed(self.runtime.seed());
        let mut config = self.connector.clone();
        if config.endpoints != endpoints.len() {
            // Some were learnt.
            Arc::make_mut(&mut config).endpoints = endpoints.len();
        }
        let mut connector = Connector::new(config, rng, now);
        connector.set_target(mode);
        let carriers = settings.carriers.clone();
        let guide = self.guide.clone();
        let known = self.known.clone();
        known.enlist(&shared);
        let mut dialer = Dialer::new(
            connector,
            endpoints,
            guide,
            self.runtime.clone(),
            carriers,
            known.clone(),
        );
        if self.floor.is_none() {
            dialer.keep_security();
        }
        let driver = Driver::new(shared.clone(), Role::Client(Box::new(dialer)));
        if settings.memory.is_some() {
            let runtime = self.runtime.clone();
            self.runtime.spawn(Box::pin(async move {
                known.load(&*runtime).await;
                driver.await;
            }));
        } else {
            self.runtime.spawn(Box::pin(driver));
        }
        Arc::new(Owner(shared))
    }

    /// The session of this client that lives, or a new one where the last was lost or is being drained: at the
    /// place that the server named, if it named one. Whoever asks while it is being made waits for the same one.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn session(&self) -> Result<Session, ConnectError> {
        let session = {
            let mut current = self.current.lock();
            match &*current {
                Some(session) if session.takes_work() => session.clone(),
                _ => current.insert(self.start_connecting()).clone(),
            }
        };
        let outcome = self.established(&session).await;
        if outcome.is_err() {
            // The next one to ask begins anew, even where this one has not ended.
            let mut current = self.current.lock();
            current.take_if(|known| known.is_same(&session));
        }
        outcome.map(|()| session)
    }
}
