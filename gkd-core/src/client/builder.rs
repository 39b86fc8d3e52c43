//! [`ClientBuilder`]: all that can be set on a client.

use std::sync::Arc;
use std::time::Duration;

use gkd_proto::SessionConfig;
use gkd_proto::id::PeerId;

use super::dial::Dialler;
use super::{Client, Path, Via};
use crate::carrier::{CarrierError, CarrierKind, ws};
use crate::error::{Error, Result};
use crate::identity::SecretKey;
use crate::link::{Address, Host, Link};
use crate::runtime;
use crate::socket::{Bind, Congestion, SocketOptions};

/// Tunnels per path where nothing else is asked for.
pub const DEFAULT_TUNNELS: usize = 4;

/// The most tunnels per path.
pub const MAX_TUNNELS: usize = 64;

/// How long one dial may take, from the name to the Welcome, where nothing else is asked for.
const DIAL: Duration = Duration::from_secs(10);

/// Sets up a [`Client`]. Mistakes are kept until [`start`](Self::start) or [`connect`](Self::connect).
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    key: Option<SecretKey>,
    server: Option<PeerId>,
    /// Each with what its link says of the way there, if one brought it.
    addresses: Vec<(Address, Option<Way>)>,
    binds: Vec<Bind>,
    via: Option<Via>,
    direct: Vec<Host>,
    carrier: CarrierKind,
    tunnels: usize,
    auto: bool,
    options: SocketOptions,
    session: SessionConfig,
    timeout: Duration,
    wait_for_network: bool,
    mistake: Option<String>,
}

/// What tunnels to an address run over, and the WebSocket that is asked for where it is one.
type Way = (CarrierKind, Option<Arc<ws::Options>>);

fn way(carrier: CarrierKind, options: impl FnOnce() -> ws::Options) -> Way {
    let is_web = matches!(carrier, CarrierKind::Ws | CarrierKind::Wss);
    (carrier, is_web.then(|| Arc::new(options())))
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            key: None,
            server: None,
            addresses: Vec::new(),
            binds: Vec::new(),
            via: None,
            direct: Vec::new(),
            carrier: CarrierKind::Tls,
            tunnels: DEFAULT_TUNNELS,
            auto: false,
            options: SocketOptions::default(),
            session: SessionConfig::default(),
            timeout: DIAL,
            wait_for_network: false,
            mistake: None,
        }
    }
}

impl ClientBuilder {
    /// Takes keys, carrier and addresses from a link. Several links are several paths; they have to name one
    /// server and one user.
    pub fn link(mut self, link: &Link) -> Self {
        if self.server.is_some_and(|server| server != link.server) {
            self.mistake("the links name different servers: all links of one client name one server's key");
        }
        if self.key.as_ref().is_some_and(|key| *key != link.user) {
            self.mistake("the links name different users: all links of one client bear one user's key");
        }
        self.server = Some(link.server);
        self.key = Some(link.user.clone());
        let way = way(link.carrier, || link.web());
        self.addresses.extend(link.addresses.iter().map(|address| (address.clone(), Some(way.clone()))));
        self
    }

    /// The client's own key; a fresh one by default.
    pub fn key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The server's key; no other is accepted. Needed for TLS.
    pub fn server_key(mut self, server: PeerId) -> Self {
        self.server = Some(server);
        self
    }

    /// A further address of the server: a path for each bind.
    pub fn address(mut self, address: impl IntoAddress) -> Self {
        match address.into_address() {
            Ok(address) => self.addresses.push((address, None)),
            Err(error) => self.mistake(&error.to_string()),
        }
        self
    }

    /// A local address or interface that tunnels start from: with several, one path each.
    pub fn bind(mut self, bind: Bind) -> Self {
        self.binds.push(bind);
        self
    }

    /// The HTTP proxy that leads to the server. It is dialled instead, from the same binds, and asked with CONNECT; a
    /// server's name is resolved by the proxy.
    pub fn via(mut self, via: Via) -> Self {
        self.via = Some(via);
        self
    }

    /// A host of the server that is dialled without the proxy.
    pub fn direct(mut self, host: Host) -> Self {
        self.direct.push(host);
        self
    }

    /// What tunnels run over, for addresses that no link brought; TLS by default.
    pub fn carrier(mut self, carrier: CarrierKind) -> Self {
        self.carrier = carrier;
        self
    }

    /// Tunnels per path, 1 to 64; 4 by default.
    pub fn tunnels(mut self, tunnels: usize) -> Self {
        if !(1..=MAX_TUNNELS).contains(&tunnels) {
            self.mistake(&format!("{tunnels} tunnels per path: it has to be 1 to {MAX_TUNNELS}"));
        }
        (self.tunnels, self.auto) = (tunnels, false);
        self
    }

    /// As many tunnels per path as bring something, 4 to 64: begins with four, tries half as many more while more waits
    /// than they move, keeps those that raise goodput by half of what was added at least, and takes away what brings
    /// nothing. A server that lets no more in is no failure. N tunnels take N shares of a full line, so whoever shares
    /// it has less while more are tried.
    pub fn auto_tunnels(mut self) -> Self {
        (self.tunnels, self.auto) = (DEFAULT_TUNNELS, true);
        self
    }

    /// Congestion control of the tunnels' sockets.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.options.congestion = congestion;
        self
    }

    /// How the tunnels' sockets are set, congestion control included.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Limits and windows of the session.
    pub fn session(mut self, config: SessionConfig) -> Self {
        self.session = config;
        self
    }

    /// How long one dial may take, from the name to the Welcome; 10 s by default.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With true, a network or a server that is down does not make [`connect`](Self::connect) fail: the client
    /// keeps trying. A server that refuses the key, or proves another than its own, does.
    pub fn wait_for_network(mut self, wait: bool) -> Self {
        self.wait_for_network = wait;
        self
    }

    /// Starts to dial, and waits for nothing.
    ///
    /// # Errors
    /// What was asked for contradicts itself or cannot be had; no runtime.
    pub fn start(self) -> Result<Client> {
        if let Some(mistake) = self.mistake {
            return Err(Error::Config(mistake));
        }
        let paths = self.paths();
        if paths.is_empty() {
            return Err(Error::Config("no address of the server was given: name one, or a link".into()));
        }
        if self.server.is_none() && paths.iter().any(|path| path.carrier != CarrierKind::Plain) {
            return Err(CarrierError::NoServerKey.into());
        }
        self.options.congestion.check().map_err(|error| Error::Config(error.to_string()))?;
        let dialler = Dialler {
            key: self.key.unwrap_or_else(SecretKey::generate),
            server: self.server,
            options: self.options,
            timeout: self.timeout,
        };
        let mut session = self.session;
        let most = if self.auto { MAX_TUNNELS } else { self.tunnels };
        // Room for those that are being replaced.
        session.max_tunnels = session.max_tunnels.max(2 * paths.len() * most);
        Ok(Client::spawn(dialler, paths, self.tunnels, self.auto, session.clamped(), runtime::handle()?))
    }

    /// Starts to dial, and waits until a tunnel is up.
    ///
    /// # Errors
    /// As [`start`](Self::start); why no tunnel came up, when the first dial of every tunnel failed (see
    /// [`wait_for_network`](Self::wait_for_network)) or one was refused for good.
    pub async fn connect(self) -> Result<Client> {
        let keep_trying = self.wait_for_network;
        let client = self.start()?;
        match client.ready().await {
            Err(Error::Dial(error)) if keep_trying && !error.is_final() => Ok(client),
            Err(error) => Err(error),
            Ok(()) => Ok(client),
        }
    }

    fn paths(&self) -> Vec<Arc<Path>> {
        let binds: Vec<_> = match self.binds.as_slice() {
            [] => vec![None],
            binds => binds.iter().cloned().map(Some).collect(),
        };
        let otherwise = way(self.carrier, ws::Options::default);
        let path = |address: &Address, (carrier, web): &Way, bind: &Option<Bind>| {
            let via = self.via.clone().filter(|_| !self.direct.contains(&address.host));
            let (address, bind, web) = (address.clone(), bind.clone(), web.clone());
            Arc::new(Path { address, bind, carrier: *carrier, via, web })
        };
        self.addresses
            .iter()
            .map(|(address, way)| (address, way.as_ref().unwrap_or(&otherwise)))
            .flat_map(|(address, way)| binds.iter().map(move |bind| path(address, way, bind)))
            .collect()
    }

    fn mistake(&mut self, mistake: &str) {
        self.mistake.get_or_insert_with(|| mistake.to_owned());
    }
}

/// What names a server: `"server.example:9990"`, a [`SocketAddr`](std::net::SocketAddr), a name or an address
/// with a port, an [`Address`]. A name is resolved at every dial.
pub trait IntoAddress {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong.
    fn into_address(self) -> Result<Address>;
}

impl IntoAddress for Address {
    fn into_address(self) -> Result<Address> {
        Ok(self)
    }
}

impl IntoAddress for &str {
    fn into_address(self) -> Result<Address> {
        self.parse().map_err(|error: crate::link::AddressError| Error::Config(error.to_string()))
    }
}

impl IntoAddress for &String {
    fn into_address(self) -> Result<Address> {
        self.as_str().into_address()
    }
}

impl IntoAddress for String {
    fn into_address(self) -> Result<Address> {
        self.as_str().into_address()
    }
}

impl IntoAddress for std::net::SocketAddr {
    fn into_address(self) -> Result<Address> {
        self.to_string().into_address()
    }
}

impl IntoAddress for (&str, u16) {
    fn into_address(self) -> Result<Address> {
        format!("{}:{}", self.0, self.1).into_address()
    }
}

impl IntoAddress for (std::net::IpAddr, u16) {
    fn into_address(self) -> Result<Address> {
        std::net::SocketAddr::from(self).into_address()
    }
}
