//! What the client is to do: read from the command line, the environment and a file, in this order of
//! precedence, and checked. Nothing is resolved, dialled or opened here.
//!
//! Each source becomes a [`Layer`] of texts that know where they stand; [`Settings::resolve`] takes each
//! value from the highest layer that has it, and reads it. So a value is judged alike wherever it stands,
//! and an error names the option, the variable, or the file and line.

mod file;
mod layer;
mod links;
mod overlaps;
mod via;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gkd_core::carrier::CarrierKind;
use gkd_core::link::Link;
use gkd_core::socket::{Bind, Congestion};
use gkd_core::{DEFAULT_TUNNELS, MAX_TUNNELS};
use gkd_proxy::Listener;
use gkd_proxy::program::log::{Format, Level};
use gkd_proxy::program::{Failure, TimeoutError, Timeouts};
use gkd_proxy::reverse::RemoteError;
use gkd_proxy::service::form::{Behind, ServiceForm, Weight};

use crate::cli::{Listeners, Log, Reach};
use crate::listeners::{Named, Wanted};

pub(crate) use layer::Environment;
use layer::{Layer, NamedText, ServiceText, Text};
use via::Reaching;

/// What the configuration is called in its directory.
const FILE_NAME: &str = "client.toml";

/// Everything that can be set.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The links; none where none was given.
    pub(crate) links: Vec<Link>,
    /// Tunnels per path, 1 to 64; at first where `auto` decides.
    pub(crate) tunnels: usize,
    /// Their number is found while the client runs.
    pub(crate) auto: bool,
    /// What listens, here and at the server, one at least.
    pub(crate) listeners: Vec<Named<Wanted>>,
    /// Folders behind services, and where they are named.
    folders: Vec<(Text, Behind)>,
    /// The file says so, or nothing does: neither the command line nor the environment.
    pub(crate) listeners_of_file: bool,
    /// Local ends of paths; none leaves it to the system.
    pub(crate) bind: Vec<Bind>,
    /// Whether a proxy leads to the server.
    pub(crate) reaching: Reaching,
    /// Congestion control of the tunnels.
    pub(crate) congestion: Congestion,
    /// How long is waited for what.
    pub(crate) timeouts: Timeouts,
    /// How log lines look.
    pub(crate) format: Format,
    /// How much is logged where neither a flag nor `RUST_LOG` says.
    pub(crate) level: Level,
    /// What is to be told in the log, as warnings.
    pub(crate) notes: Vec<String>,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
}

/// Reads everything: options, environment, and the file that they name or that is there.
///
/// # Errors
/// The first value that cannot be read, with where it stands; a file that cannot be.
pub(crate) fn load(
    reach: &Reach,
    listeners: &Listeners,
    log: &Log,
    environment: &Environment,
) -> Result<Settings, Failure> {
    let flags = Layer::from_flags(reach, listeners, log);
    let variables = Layer::from_environment(environment);
    let named = flags.config.as_ref().or(variables.config.as_ref());
    let found = match named {
        Some(named) => Some(PathBuf::from(&named.text)),
        None => environment.config_files(FILE_NAME).into_iter().find(|path| path.exists()),
    };
    let mut notes = Vec::new();
    let file = match &found {
        Some(path) => file::read(path, named, &mut notes)?,
        None => Layer::default(),
    };
    let mut settings = Settings::resolve([flags, variables, file], environment, notes)?;
    settings.file = found;
    Ok(settings)
}

impl Settings {
    /// Takes each value from the first layer that has it.
    fn resolve(
        layers: [Layer; 3],
        environment: &Environment,
        mut notes: Vec<String>,
    ) -> Result<Self, Failure> {
        let [flags, variables, file] = layers;
        let plain = match flags.plain.or(variables.plain).or(file.plain) {
            Some(plain) => plain.read::<bool, _>(|text| match text {
                "1" | "true" | "yes" => Ok(true),
                "0" | "false" | "no" => Ok(false),
                other => {
                    Err(format!("\"{}\" is neither true nor false: write one of them", other.escape_debug()))
                }
            })?,
            None => false,
        };
        let (tunnels, auto) = match flags.tunnels.or(variables.tunnels).or(file.tunnels) {
            Some(tunnels) if tunnels.text == "auto" => (DEFAULT_TUNNELS, true),
            Some(tunnels) => (read_tunnels(&tunnels)?, false),
            None => (DEFAULT_TUNNELS, false),
        };
        let sources = [
            (flags.links, flags.link_file),
            (variables.links, variables.link_file),
            (file.links, file.link_file),
        ];
        let chosen = sources.into_iter().find(|(links, file)| !links.is_empty() || file.is_some());
        let (texts, link_file) = chosen.unwrap_or_default();
        let links = read_links(texts, link_file.as_ref(), plain, &mut notes)?;
        // Only a file has services of their own.
        let all = [
            (flags.local, flags.remote, Vec::new()),
            (variables.local, variables.remote, Vec::new()),
            (file.local, file.remote, file.services),
        ];
        let is_given = |(local, remote, services): &(Vec<_>, Vec<_>, Vec<_>)| {
            !local.is_empty() || !remote.is_empty() || !services.is_empty()
        };
        let listeners_of_file = !all[..2].iter().any(is_given);
        let mut folders = Vec::new();
        let listeners = match all.into_iter().find(is_given) {
            Some((local, remote, services)) => {
                let mut listeners = read_all_named(&local, read_local)?;
                listeners.extend(read_all_named(&remote, read_remote)?);
                for service in &services {
                    listeners.push(Named { name: None, it: Wanted::Service(read_service(service)?) });
                }
                let written = local.iter().chain(&remote).map(|written| &written.form);
                let written: Vec<_> = written.chain(services.iter().map(|written| &written.to)).collect();
                overlaps::refuse(&listeners, written.iter().copied())?;
                folders.extend(listeners.iter().zip(written).filter_map(|(named, text)| match &named.it {
                    Wanted::Service(service) => Some((text.clone(), service.to.clone())),
                    _ => None,
                }));
                listeners
            }
            None => vec![Named { name: None, it: Wanted::Here(Listener::default()) }],
        };
        let reaching = match flags.via.or(variables.via).or(file.via) {
            Some(via) => via::read(&via, &links, environment)?,
            None => Reaching::default(),
        };
        let bind = [flags.bind, variables.bind, file.bind].into_iter().find(|bind| !bind.is_empty());
        let congestion = flags.congestion.or(variables.congestion).or(file.congestion);
        let format = flags.log_format.or(variables.log_format).or(file.log_format);
        Ok(Self {
            links,
            tunnels,
            auto,
            listeners,
            folders,
            listeners_of_file,
            bind: read_all(&bind.unwrap_or_default())?,
            reaching,
            congestion: read_one(congestion)?,
            timeouts: read_timeouts(&file.timeouts)?,
            format: read_one(format)?,
            level: read_one(file.log_level)?,
            notes,
            file: None,
        })
    }

    /// The settings that are others there, by the names that they have in the file; but for the listeners.
    pub(crate) fn differ(&self, there: &Self) -> Vec<&'static str> {
        let all = [
            // `plain` is in them.
            ("links", self.links == there.links),
            ("tunnels", (self.tunnels, self.auto) == (there.tunnels, there.auto)),
            ("bind", self.bind == there.bind),
            ("via", self.reaching == there.reaching),
            ("congestion", self.congestion == there.congestion),
            ("timeouts", self.timeouts == there.timeouts),
            ("log", self.level == there.level),
            ("log_format", self.format == there.format),
        ];
        all.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// Looks whether the folders behind services are there.
    ///
    /// # Errors
    /// One is not.
    pub(crate) fn check_folders(&self) -> Result<(), Failure> {
        self.folders.iter().try_for_each(|(text, to)| to.check().map_err(|error| text.wrong(error)))
    }

    /// The servers' addresses in one line, without keys.
    pub(crate) fn server(&self) -> String {
        let mut addresses: Vec<_> =
            self.links.iter().flat_map(|link| &link.addresses).map(ToString::to_string).collect();
        addresses.dedup();
        addresses.join(", ")
    }
}

fn read_all<T: FromStr<Err: fmt::Display>>(texts: &[Text]) -> Result<Vec<T>, Failure> {
    texts.iter().map(|text| text.read(str::parse)).collect()
}

fn read_all_named(
    written: &[NamedText],
    read: impl Fn(&Text) -> Result<Wanted, Failure>,
) -> Result<Vec<Named<Wanted>>, Failure> {
    let one = |written: &NamedText| {
        let name = written.name.as_ref().map(|name| name.text.clone());
        Ok(Named { name, it: read(&written.form)? })
    };
    written.iter().map(one).collect()
}

fn read_local(form: &Text) -> Result<Wanted, Failure> {
    form.read(str::parse).map(Wanted::Here)
}

/// At the server, what begins with `http://` or `h2c://` is a service; unless it is a proxy, which listens here only.
fn read_remote(form: &Text) -> Result<Wanted, Failure> {
    let listener = form.text.parse::<Listener>();
    let is_service = ["http://", "https://", "h2c://"].iter().any(|scheme| form.text.starts_with(scheme));
    if is_service && listener.is_err() {
        let service = form.text.parse::<ServiceForm>();
        let words = |error| format!("service \"{}\": {error}", form.text.escape_debug());
        return service.map(Wanted::Service).map_err(|error| form.wrong(words(error)));
    }
    let listener = listener.map_err(|error| form.wrong(error))?;
    RemoteError::check(&listener).map_err(|error| form.wrong(error))?;
    Ok(Wanted::Server(listener))
}

fn read_service(written: &ServiceText) -> Result<ServiceForm, Failure> {
    Ok(ServiceForm {
        name: written.name.read(str::parse)?,
        to: written.to.read(str::parse)?,
        weight: written
            .weight
            .as_ref()
            .map_or_else(|| Ok(Weight::default()), |weight| weight.read(str::parse))?,
    })
}

fn read_one<T: FromStr<Err: fmt::Display> + Default>(text: Option<Text>) -> Result<T, Failure> {
    text.map_or_else(|| Ok(T::default()), |text| text.read(str::parse))
}

fn read_timeouts(written: &[(Text, Text)]) -> Result<Timeouts, Failure> {
    let mut timeouts = Timeouts::default();
    for (name, time) in written {
        timeouts.set(&name.text, &time.text).map_err(|error| match error {
            TimeoutError::Name(_) => name.wrong(error),
            TimeoutError::Time(_) => time.wrong(error),
        })?;
    }
    Ok(timeouts)
}

fn read_tunnels(text: &Text) -> Result<usize, Failure> {
    text.read(|text| match text.parse() {
        Ok(tunnels) if (1..=MAX_TUNNELS).contains(&tunnels) => Ok(tunnels),
        _ => Err(format!(
            "\"{}\" is no number of tunnels: write 1 to {MAX_TUNNELS}, or auto",
            text.escape_debug()
        )),
    })
}

fn read_links(
    mut texts: Vec<Text>,
    link_file: Option<&Text>,
    plain: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Link>, Failure> {
    if let Some(file) = link_file {
        texts.extend(links::read(file, notes)?);
    }
    let mut links: Vec<Link> = read_all(&texts)?;
    links::check_alike(&links, &texts)?;
    for (link, text) in links.iter_mut().zip(&texts) {
        choose_carrier(link, plain, notes).map_err(|error| text.wrong(error))?;
    }
    Ok(links)
}

/// `--plain` makes links unencrypted that do not ask for it themselves. Either way it is told.
fn choose_carrier(link: &mut Link, plain: bool, notes: &mut Vec<String>) -> Result<(), String> {
    if plain && link.carrier == CarrierKind::Tls {
        link.carrier = CarrierKind::Plain;
    }
    match link.carrier {
        CarrierKind::Tls | CarrierKind::Ws | CarrierKind::Wss => Ok(()),
        CarrierKind::Plain => {
            notes.push(format!(
                "the tunnels to {} are NOT encrypted: whoever is on the path reads and changes what they carry",
                link.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ));
            Ok(())
        }
        other => Err(format!("the carrier {other}:// is not in this version: use the server's gkd:// link")),
    }
}

/// A file that bears a key, or another secret, and that others may read is worth a note.
fn note_mode(path: &Path, file: &std::fs::File, secret: &str, notes: &mut Vec<String>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        /// Reading by the group and by others.
        const READABLE: u32 = 0o044;

        if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & READABLE != 0) {
            let path = path.display();
            notes.push(format!("{path} bears {secret} and other users may read it: chmod 600 {path}"));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, file, secret, notes);
}
