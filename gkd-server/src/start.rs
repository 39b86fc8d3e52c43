//! Starting a server: its files, or those of a first start; its sockets; and the link that the first start hands
//! out.

use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gkd_core::identity::{SecretKey, public_text};
use gkd_core::link::Host;
use gkd_core::{Server, ServerBuilder};
use gkd_proxy::program::control::{Control, ControlError};
use gkd_proxy::program::{Failure, count};
use gkd_proxy::service::announce::Announcements;
use gkd_proxy::site::Site;
use ipnet::IpNet;

use crate::PROGRAM;
use crate::access::Access;
use crate::cli::RunOptions;
use crate::config::{Config, Limits};
use crate::descriptors::Descriptors;
use crate::dir::{self, Dir};
use crate::http::Prepared;
use crate::init::{self, Fresh};
use crate::listen::{self, ListenAddress};
use crate::public_name::{self, PublicName};
use crate::run::Running;
use crate::users;

/// How long the server's own name may take to resolve.
const OWN_NAME: Duration = Duration::from_secs(30);

/// What a server is started with: of its files, or made for the first start.
struct Start {
    config: Config,
    key: SecretKey,
    fresh: Option<Fresh>,
}

impl Start {
    fn load(dir: &Dir) -> Result<Self, Failure> {
        if dir::exists(&dir.config())? {
            if let Some(warning) = dir.config_warning() {
                tracing::warn!("{warning}");
            }
            return Ok(Self { config: Config::load(dir)?, key: dir.read_key()?, fresh: None });
        }
        dir.make()?;
        let fresh = Fresh::make(dir)?;
        let config = Config::parse(&fresh.config(None));
        let config = config.map_err(|problems| Failure::bug(problems.of(&dir.config())))?;
        Ok(Self { config, key: fresh.key.clone(), fresh: Some(fresh) })
    }
}

impl Running {
    /// Listens, with what the files and the options say. The first start writes the files, once it listens.
    ///
    /// # Errors
    /// What has to be mended first.
    pub(crate) async fn start(
        dir: Dir,
        options: RunOptions,
        descriptors: Descriptors,
    ) -> Result<(Self, Control), Failure> {
        let Start { config, key, fresh } = Start::load(&dir)?;
        // Before the ports, so that a second server is told what is in its way.
        let control = control(&dir).await?;
        let public = options.public.public.or_else(|| config.public.clone());
        let listen = [options.listen, config.listen.clone(), ListenAddress::usual()];
        let listen = listen.into_iter().find(|listen| !listen.is_empty()).unwrap_or_default();
        config.check_site(&dir.config())?;
        config.check_http(&dir.config())?;
        let listeners = listen::listen(&listen)?;
        let plain = options.plain || config.plain;
        let prepared = Prepared::new(config.http());
        let announcements = prepared.announcements();
        let access = Arc::new(access(&config, options.allow, public.as_ref(), descriptors, announcements));

        let mut builder = Server::builder()
            .key(key.clone())
            .plain(plain)
            .websocket(config.websocket.clone())
            .congestion(options.congestion.unwrap_or_else(|| config.congestion.clone()))
            .session(config.session())
            .handshake_timeout(config.timeouts.handshake);
        builder = limited(builder, &config.limits, descriptors);
        if let Some(site) = config.site() {
            builder = builder.site(Site::new(site.clone()).service());
        }
        for listener in listeners {
            builder = builder.listener(listener);
        }
        let (admitting, watching) = (access.clone(), access.clone());
        builder = builder.authorise(move |peer| admitting.admit(peer)).on_session(move |session, address| {
            let access = watching.clone();
            tokio::spawn(async move { access.see_to(session, address).await });
        });
        let server = Arc::new(builder.bind().await.map_err(|error| Failure::config(error.to_string()))?);

        tracing::info!("listening on {}", listen::shown(server.local_addrs()));
        tracing::debug!(key = public_text(&key.public()), "the server's public key");
        if plain {
            tracing::warn!(
                "the unencrypted carrier is taken as well: what goes over it can be read and changed"
            );
        }
        if let Some(fresh) = fresh {
            first_start(&dir, &fresh, public.clone(), &listen, &server)?;
        } else if config.users.is_empty() {
            tracing::warn!("there is no user, so nobody can come in: gkd-server user add NAME makes one");
        } else {
            tracing::info!(
                "{} may come in; a link cannot be printed again, gkd-server user add or renew makes one",
                count(config.users.len(), "user")
            );
        }
        if let Some(public) = public {
            tokio::spawn(resolve_own(access.clone(), public));
        }
        let http = prepared.open(config.http(), descriptors).await?;
        let running = Self { dir, config, server, access, http, unencrypted: plain, began: Instant::now() };
        Ok((running, control))
    }
}

/// The server's control socket. Without one it serves all the same; but two on one directory would not both hear
/// which users come and go.
async fn control(dir: &Dir) -> Result<Control, Failure> {
    match Control::open(PROGRAM, &dir.control()).await {
        Ok(control) => Ok(control),
        Err(error @ ControlError::Running { .. }) => Err(Failure::config(format_args!(
            "{error}: end that one first, or choose another directory with --dir"
        ))),
        Err(error) => {
            tracing::warn!(
                "there is no control socket, so gkd-server status does not work, and user commands need a HUP: {error}"
            );
            Ok(Control::none())
        }
    }
}

fn limited(builder: ServerBuilder, limits: &Limits, descriptors: Descriptors) -> ServerBuilder {
    builder
        .max_sessions(limits.sessions, limits.sessions_per_user)
        .max_tunnels(descriptors.tunnels())
        .max_half_open(descriptors.half_open(limits.half_open), limits.half_open_per_address)
        .max_visitors(descriptors.visitors())
        .memory(limits.memory.bytes())
}

fn access(
    config: &Config,
    always: Vec<IpNet>,
    public: Option<&PublicName>,
    descriptors: Descriptors,
    announcements: Arc<dyn Announcements>,
) -> Access {
    let own = |host: &Host| match host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(_) => None,
    };
    let own: Vec<IpAddr> = public.into_iter().flat_map(PublicName::hosts).filter_map(own).collect();
    Access::new(config, always, own, descriptors.destinations(config.http().is_some()), announcements)
}

/// The addresses of the server's own name are its own, though perhaps a router has them: users do not reach them.
async fn resolve_own(access: Arc<Access>, public: PublicName) {
    for host in public.hosts() {
        let Host::Name(name) = host else { continue };
        // The port does not matter.
        match tokio::time::timeout(OWN_NAME, tokio::net::lookup_host((name.as_str(), 0))).await {
            Ok(Ok(found)) => access.add_own(found.map(|address| address.ip())),
            Ok(Err(error)) => tracing::debug!(name, %error, "the server's own name does not resolve here"),
            Err(_) => tracing::debug!(name, "the server's own name does not resolve here in time"),
        }
    }
}

/// Writes the files of a server that listens for the first time, and hands out its link. The key has no business
/// in a journal: without a terminal it goes to a file.
fn first_start(
    dir: &Dir,
    fresh: &Fresh,
    public: Option<PublicName>,
    listen: &[ListenAddress],
    server: &Server,
) -> Result<(), Failure> {
    let given = public.is_some();
    let public = match public {
        Some(public) => public,
        None => find_public(listen, server)?,
    };
    // A port that the system chose is another one at the next start.
    let stays = given || listen.iter().all(|address| *address.ports().start() != 0);
    let _lock = dir.lock()?;
    fresh.write(dir, stays.then_some(&public))?;
    tracing::info!("made {} and {}", dir.config().display(), dir.key().display());
    let link = fresh.link(&public).to_string();
    if io::stdout().is_terminal() {
        users::print_link(&link, &init::first_user()?)?;
        eprintln!(
            "this link is all that the client takes: gkd-client 'gkd://...'; it cannot be printed again"
        );
    } else {
        let path = dir.first_link();
        dir::replace(&path, &format!("{link}\n"))?;
        tracing::info!("the link for the client is in {}: whoever has it can use the server", path.display());
    }
    Ok(())
}

fn find_public(listen: &[ListenAddress], server: &Server) -> Result<PublicName, Failure> {
    let bound: Vec<ListenAddress> = server.local_addrs().iter().map(|address| (*address).into()).collect();
    let found = public_name::find(listen).or_else(|| public_name::find(&bound));
    let found = found.ok_or_else(|| Failure::bug("the server listens on no port"))?;
    if let Some(note) = found.note {
        tracing::warn!("{note}");
    }
    Ok(found.name)
}
