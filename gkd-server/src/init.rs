//! The first start: keys, the first user and a `server.toml` that a person can go on with ([`Fresh`]). Nothing
//! that is there is ever overwritten.

use gkd_core::identity::{SecretKey, public_text};
use gkd_core::link::Link;
use gkd_proxy::program::Failure;

use crate::dir::{self, Dir};
use crate::listen::ListenAddress;
use crate::public_name::{self, PublicName};
use crate::users::{self, UserName};

/// `server.toml` without users, with all that can be set.
const TEMPLATE: &str = include_str!("server.toml");

/// The line of it that a public name takes the place of.
const PUBLIC_LINE: &str = "# public = \"server.example:9990\"";

/// The name of the first user.
const FIRST_USER: &str = "first";

/// A server that was not there before. Nothing is written until [`write`](Self::write).
pub(crate) struct Fresh {
    pub(crate) key: SecretKey,
    pub(crate) user: SecretKey,
    key_is_there: bool,
}

/// Makes a server and prints its first link.
pub(crate) fn init(dir: &Dir, public: Option<PublicName>) -> Result<(), Failure> {
    dir.make()?;
    let _lock = dir.lock()?;
    if dir::exists(&dir.config())? {
        let path = dir.config();
        return Err(Failure::config(format!(
            "{} is there already, and nothing is overwritten: gkd-server user add NAME makes another link; to begin \
             anew, which ends all links, move it away",
            path.display()
        )));
    }
    let fresh = Fresh::make(dir)?;
    let public = match public {
        Some(public) => public,
        None => {
            let Some(found) = public_name::find(&ListenAddress::usual()) else {
                return Err(Failure::bug("the usual port has no number"));
            };
            if let Some(note) = found.note {
                eprintln!("{note}");
            }
            found.name
        }
    };
    fresh.write(dir, Some(&public))?;
    eprintln!("wrote {} and {}", dir.config().display(), dir.key().display());
    users::print_link(&fresh.link(&public).to_string(), &first_user()?)?;
    eprintln!("whoever has this link can use the server; it cannot be printed again");
    Ok(())
}

/// The name of the first user.
pub(crate) fn first_user() -> Result<UserName, Failure> {
    FIRST_USER.parse().map_err(Failure::bug)
}

impl Fresh {
    /// Draws keys. A server's key that is there without a configuration stays the server's key: it may have
    /// been put back from a copy, or a first start was cut short.
    pub(crate) fn make(dir: &Dir) -> Result<Self, Failure> {
        let key_is_there = dir::exists(&dir.key())?;
        let key = if key_is_there { dir.read_key()? } else { SecretKey::generate() };
        Ok(Self { key, user: SecretKey::generate(), key_is_there })
    }

    /// The link of the first user.
    pub(crate) fn link(&self, public: &PublicName) -> Link {
        public.link(self.key.public(), self.user.clone())
    }

    /// `server.toml` with the first user.
    pub(crate) fn config(&self, public: Option<&PublicName>) -> String {
        let text = match public {
            Some(public) => TEMPLATE.replacen(PUBLIC_LINE, &format!("public = \"{public}\""), 1),
            None => TEMPLATE.to_owned(),
        };
        let key = public_text(&self.user.public());
        format!("{text}\n[[user]]\nname = \"{FIRST_USER}\"\nkey = \"{key}\"\n")
    }

    /// Writes the files, the configuration last: where it is, the key is.
    pub(crate) fn write(&self, dir: &Dir, public: Option<&PublicName>) -> Result<(), Failure> {
        if !self.key_is_there {
            let text = format!(
                "# The secret key of this gkd server: whoever has it can pass for the server. The links name its\n\
                 # public half, so without it they are worth nothing: keep a copy.\n{}\n",
                self.key.to_secret_text()
            );
            dir::create(&dir.key(), &text)?;
        }
        dir::create(&dir.config(), &self.config(public))
    }
}

#[cfg(test)]
mod tests {
    use gkd_proxy::program::Timeouts;
    use gkd_proxy::service::config::{FrontLimits, HealthCheck, ServiceConfig};

    use super::*;
    use crate::config::{Config, Limits};

    fn fresh() -> Fresh {
        Fresh { key: SecretKey::generate(), user: SecretKey::generate(), key_is_there: false }
    }

    /// The file with all that it shows as a comment taken in; the first user stands for those of the examples.
    fn taken_in() -> String {
        let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
        let text = fresh().config(None).replace("[\"anna\", \"ben\"]", "[\"first\"]");
        let lines = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.starts_with('[') || is_setting(setting) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        });
        lines.collect()
    }

    #[test]
    fn the_file_that_is_written_is_right() {
        let fresh = fresh();
        let public: PublicName = "server.example:9990".parse().unwrap();
        let config = Config::parse(&fresh.config(Some(&public))).unwrap();
        assert_eq!(config.listen, ListenAddress::usual());
        assert_eq!(config.public, Some(public));
        assert_eq!(config.users.len(), 1);
        assert_eq!(config.users[0].key, fresh.user.public());
        assert_eq!(Config::parse(&fresh.config(None)).unwrap().public, None);
    }

    #[test]
    fn what_the_file_shows_of_a_user_may_stand_there() {
        let text = taken_in();
        let shown: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&format!("{text}{shown}")).unwrap();
        let user = &config.users[0];
        assert_eq!(user.rules.len(), 5, "{shown}");
        assert_eq!(user.binds.to_string(), "127.0.0.1:8080, 127.0.0.1:9000-9009, 0.0.0.0:443, [::]:443");
        assert_eq!(
            (user.limits.sessions, user.limits.tunnels, user.limits.connections),
            (Some(4), Some(16), Some(1000))
        );
        assert_eq!(user.limits.speeds.up, Some("10M".parse().unwrap()));
        assert_eq!(user.services.to_string(), "shop, anna-*");
    }

    #[test]
    fn what_the_file_shows_as_a_comment_may_be_taken_in() {
        let text = taken_in();
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.allow.len(), 2, "{text}");
        assert!(config.public.is_some() && config.site().is_some());
        assert_eq!(config.limits, Limits::default(), "what the comments call the default is the default");
        assert_eq!(config.timeouts, Timeouts::default(), "likewise");
        let http = config.http().unwrap();
        let mut limits = http.limits;
        (limits.max_body, limits.requests_per_second) = (None, None);
        assert_eq!(limits, FrontLimits::default(), "likewise");
        assert_eq!((http.limits.max_body, http.limits.requests_per_second), (Some(1 << 30), Some(100)));
        let [shop] = &http.services[..] else { panic!("one is shown") };
        let usual = ServiceConfig::new("shop");
        assert_eq!(
            (shop.balance, &shop.host, shop.https),
            (usual.balance, &usual.host, usual.https),
            "likewise"
        );
        let health = shop.health.as_ref().unwrap();
        assert_eq!(*health, HealthCheck::new("/healthz"), "likewise");
        assert_eq!((shop.targets.len(), &shop.users[..]), (4, &["first".to_owned()][..]));
        assert_eq!((text.matches("\nsessions = ").count(), text.matches("\nresume = ").count()), (1, 1));
    }
}
