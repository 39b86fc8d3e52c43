//! Services take what clients announce ([`Clients`]).

use std::sync::Arc;

use super::{AnnounceError, Services};
use crate::destination::Protocol as Spoken;
use crate::reverse::{Refusal, RefusalCause};
use crate::service::announce::{Announced, Announcement, Announcements};
use crate::service::config::ServiceNames;
use crate::service::name::ServiceName;
use crate::service::upstream::Protocol;

/// Makes what clients announce targets of these services.
pub struct Clients(pub Arc<Services>);

impl Announcements for Clients {
    fn announce(&self, announcement: Announcement<'_>) -> Result<Announced, Refusal> {
        let Announcement { service, user, granted, target, protocol, weight } = announcement;
        let protocol = match protocol {
            Spoken::Http1 => Protocol::Http1,
            Spoken::H2c => Protocol::Http2,
        };
        let guard = self.0.announce(service.as_str(), user, granted, (target, protocol), weight)?;
        Ok(Announced { place: self.0.place(service.as_str()), guard: Box::new(guard) })
    }

    fn still_takes(&self, service: &ServiceName, user: &str, granted: &ServiceNames) -> Result<(), Refusal> {
        Ok(self.0.may_announce(user, granted, service.as_str())?)
    }
}

impl From<AnnounceError> for Refusal {
    fn from(error: AnnounceError) -> Self {
        let cause = match error {
            AnnounceError::NotAnnounced(_) => RefusalCause::Forbidden,
            AnnounceError::Taken(_) | AnnounceError::Clash(_) => RefusalCause::Taken,
            AnnounceError::Full(_) => RefusalCause::TooMany,
        };
        Refusal::new(cause, error.to_string())
    }
}
