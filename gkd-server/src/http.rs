//! The HTTP services of a server, and the front where people come to them ([`Http`]).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gkd_proxy::program::Failure;
use gkd_proxy::service::announce::{Announcements, Unserved};
use gkd_proxy::service::config::HttpConfig;
use gkd_proxy::service::files::Files;
use gkd_proxy::service::front::{Front, FrontStatus};
use gkd_proxy::service::services::{Clients, Contents, ServiceStatus, Services};

use crate::descriptors::Descriptors;

/// Services behind a front that is open.
pub(crate) struct Http {
    services: Arc<Services>,
    front: Front,
    /// The configuration in force.
    config: Mutex<HttpConfig>,
    descriptors: Descriptors,
}

/// The configuration with no more visitors than there are descriptors for.
fn within(descriptors: Descriptors, config: &HttpConfig) -> HttpConfig {
    let mut within = config.clone();
    within.limits.connections = descriptors.front(config.limits.connections);
    if within.limits.connections < config.limits.connections {
        tracing::info!(
            "{} visitors at a time instead of {}: a higher limit of open files makes room",
            within.limits.connections,
            config.limits.connections
        );
    }
    within
}

/// Services, whose front is not open yet.
pub(crate) struct Prepared(Option<Arc<Services>>);

impl Prepared {
    /// The services of a configuration, if it has any. Must be called on the runtime.
    pub(crate) fn new(config: Option<&HttpConfig>) -> Self {
        let contents: Contents = Arc::new(|path: &Path| Arc::new(Files::new(path.to_owned())));
        Self(config.map(|config| Services::new(config, contents)))
    }

    /// Where what clients announce goes.
    pub(crate) fn announcements(&self) -> Arc<dyn Announcements> {
        match &self.0 {
            Some(services) => Arc::new(Clients(services.clone())),
            None => Arc::new(Unserved),
        }
    }

    /// Opens the front.
    ///
    /// # Errors
    /// A port or a certificate is not to be had.
    pub(crate) async fn open(
        self,
        config: Option<&HttpConfig>,
        descriptors: Descriptors,
    ) -> Result<Option<Http>, Failure> {
        let (Some(services), Some(config)) = (self.0, config) else { return Ok(None) };
        let front =
            Front::start(&within(descriptors, config), services.clone()).await.map_err(Failure::config)?;
        let addresses: Vec<_> = front.local_addrs().iter().map(ToString::to_string).collect();
        tracing::info!("HTTP services on {}", addresses.join(", "));
        Ok(Some(Http { services, front, config: Mutex::new(config.clone()), descriptors }))
    }
}

impl Http {
    /// Takes a configuration on, or changes nothing; whether it is another.
    ///
    /// # Errors
    /// A port or a certificate of it is not to be had.
    pub(crate) async fn reload(&self, config: &HttpConfig) -> Result<bool, Failure> {
        self.front.reload(&within(self.descriptors, config)).await.map_err(Failure::config)?;
        self.services.reload(config);
        let mut before = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *before != *config;
        *before = config.clone();
        Ok(differs)
    }

    /// Takes no more requests, lets those that are under way end until then, and ends connections that became another
    /// protocol's.
    pub(crate) async fn end(&self, until: Instant) {
        self.front.shutdown(until.saturating_duration_since(Instant::now())).await;
        self.services.shutdown();
    }

    /// Ends all at once.
    pub(crate) async fn abort(&self) {
        self.services.shutdown();
        self.front.shutdown(Duration::ZERO).await;
    }

    /// How the front and the services are.
    pub(crate) fn status(&self) -> (Vec<String>, FrontStatus, Vec<ServiceStatus>) {
        let listening = self.front.local_addrs().iter().map(ToString::to_string).collect();
        (listening, self.front.status(), self.services.status())
    }
}
