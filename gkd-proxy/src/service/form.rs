//! The forms in which a client says which services it announces, and what stands behind each ([`ServiceForm`]).
//!
//! | form | what it is |
//! |---|---|
//! | `http://NAME:HOST:PORT` | a web server |
//! | `h2c://NAME:HOST:PORT` | one that is spoken to in HTTP/2 without TLS, for gRPC |
//! | `http://NAME:/FOLDER` | the files of a folder |
//!
//! `?weight=N` says how large a share of the requests it gets beside others of the same name. In a file the parts stand on
//! their own, and what stands behind the name is `http://HOST:PORT`, `h2c://HOST:PORT` or `/FOLDER` ([`Behind`]).

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::name::{ServiceName, ServiceNameError};
use crate::destination::{DestinationError, Host, MAX_WEIGHT, Protocol, Target};

/// A service that a client announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceForm {
    /// What it is called.
    pub name: ServiceName,
    /// What stands behind it.
    pub to: Behind,
    /// How large its share is, 1 to [`MAX_WEIGHT`].
    pub weight: Weight,
}

/// What stands behind a service, at the end that announces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Behind {
    /// A web server.
    Http(Target),
    /// A web server that is spoken to in HTTP/2 without TLS.
    H2c(Target),
    /// A folder, by its whole path.
    Folder(PathBuf),
}

/// The share of a target beside others: 1 to [`MAX_WEIGHT`], 1 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u16);

/// Why words are no service, with the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceFormError {
    /// Parts are missing, or there are too many.
    #[error(
        "write http://NAME:HOST:PORT for a web server, h2c://NAME:HOST:PORT for one of HTTP/2, or http://NAME:/FOLDER"
    )]
    Form,
    /// The name is none.
    #[error(transparent)]
    Name(#[from] ServiceNameError),
    /// What stands behind it is no web server.
    #[error("it leads nowhere: {0}")]
    Target(#[from] DestinationError),
    /// What stands behind it is neither a web server nor a folder.
    #[error("\"{}\" is no web server and no folder: write http://HOST:PORT, h2c://HOST:PORT or /FOLDER", .0.escape_debug())]
    Behind(Box<str>),
    /// Something behind the port of a web server.
    #[error("\"{}\" is more than a web server: leave out what stands behind its port", .0.escape_debug())]
    More(Box<str>),
    /// A web server that is spoken to over TLS.
    #[error("a target over https is not to be had: name the port at which it speaks HTTP")]
    Https,
    /// Files in HTTP/2.
    #[error("a folder is asked in HTTP/1.1: write http://NAME:/FOLDER")]
    FolderInH2c,
    /// A folder that depends on where the program was started.
    #[error("the folder \"{}\" is no whole path: write one that begins with /", .0.escape_debug())]
    Relative(Box<str>),
    /// A weight that is none.
    #[error("\"{}\" is no weight: write a number from 1 to {MAX_WEIGHT}", .0.escape_debug())]
    Weight(Box<str>),
    /// An option that there is not.
    #[error("a service has no option \"{}\": it has weight=N", .0.escape_debug())]
    Option(Box<str>),
    /// The folder cannot be looked at.
    #[error("the folder {} cannot be read: {error}: make it, or write another", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// It is a file, say.
    #[error("{} is no folder: write the path of one", .0.display())]
    NoFolder(PathBuf),
}

impl ServiceForm {
    /// Tells what is announced here from what another program, on this machine or another, announces under the same name for
    /// the same user: the same whenever this one is started.
    pub(crate) fn instance(&self) -> u64 {
        // Two starts of one program have to agree, and nobody else.
        let mut hasher = DefaultHasher::new();
        machine().hash(&mut hasher);
        self.to.hash(&mut hasher);
        hasher.finish()
    }
}

/// What tells this machine from others. Machines that are copies of one another have at least names of their own.
fn machine() -> Vec<u8> {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let mut machine = read("/etc/machine-id");
    machine.extend(read("/proc/sys/kernel/hostname"));
    machine.extend(std::env::var("COMPUTERNAME").unwrap_or_default().into_bytes());
    machine
}

impl Behind {
    /// What is spoken there.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Http(_) | Self::Folder(_) => Protocol::Http1,
            Self::H2c(_) => Protocol::H2c,
        }
    }

    /// Looks whether a folder is there. Does not ask a web server, which may come and go.
    ///
    /// # Errors
    /// It is not, or is no folder.
    pub fn check(&self) -> Result<(), ServiceFormError> {
        let Self::Folder(path) = self else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(ServiceFormError::NoFolder(path.clone())),
            Err(error) => Err(ServiceFormError::NotThere { path: path.clone(), error: error.to_string() }),
        }
    }
}

impl Weight {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl FromStr for Weight {
    type Err = ServiceFormError;

    fn from_str(words: &str) -> Result<Self, ServiceFormError> {
        // `parse` would take a sign as well.
        let digits = words.bytes().all(|byte| byte.is_ascii_digit());
        match words.parse() {
            Ok(weight) if digits && (1..=MAX_WEIGHT).contains(&weight) => Ok(Self(weight)),
            _ => Err(ServiceFormError::Weight(words.into())),
        }
    }
}

impl FromStr for ServiceForm {
    type Err = ServiceFormError;

    fn from_str(words: &str) -> Result<Self, ServiceFormError> {
        let (scheme, rest) = words.split_once("://").ok_or(ServiceFormError::Form)?;
        if scheme == "https" {
            return Err(ServiceFormError::Https);
        }
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, behind) = place.split_once(':').ok_or(ServiceFormError::Form)?;
        let to = match (scheme, behind.starts_with('/')) {
            ("http", true) => Behind::Folder(PathBuf::from(behind)),
            ("h2c", true) => return Err(ServiceFormError::FolderInH2c),
            // A port alone, or a folder from where the program was started.
            ("http" | "h2c", false) if !behind.contains(':') => return Err(ServiceFormError::Form),
            ("http", false) => Behind::Http(behind.parse()?),
            ("h2c", false) => Behind::H2c(behind.parse()?),
            _ => return Err(ServiceFormError::Form),
        };
        let mut weight = Weight::default();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.strip_prefix("weight=") {
                Some(number) => weight = number.parse()?,
                None => return Err(ServiceFormError::Option(option.into())),
            }
        }
        Ok(Self { name: name.parse()?, to, weight })
    }
}

/// `http://HOST[:PORT]`, `h2c://HOST[:PORT]` or `/FOLDER`.
impl FromStr for Behind {
    type Err = ServiceFormError;

    fn from_str(words: &str) -> Result<Self, ServiceFormError> {
        let Some((scheme, rest)) = words.split_once("://") else {
            return match Path::new(words) {
                path if path.is_absolute() => Ok(Self::Folder(path.to_owned())),
                _ if words.contains(['/', '\\']) => Err(ServiceFormError::Relative(words.into())),
                _ => Err(ServiceFormError::Behind(words.into())),
            };
        };
        let place = rest.strip_suffix('/').unwrap_or(rest);
        if place.contains(['/', '?', '#', '@']) {
            return Err(ServiceFormError::More(words.into()));
        }
        // Without a port it is that of HTTP; the colons of IPv6 stand in brackets.
        let target = || match place.rfind(':') > place.rfind(']') {
            true => place.parse(),
            false => Target::new(Host::parse(place)?, 80),
        };
        match scheme {
            "http" => Ok(Self::Http(target()?)),
            "h2c" => Ok(Self::H2c(target()?)),
            "https" => Err(ServiceFormError::Https),
            _ => Err(ServiceFormError::Behind(words.into())),
        }
    }
}

/// As it stands in a file.
impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(target) => write!(f, "http://{target}"),
            Self::H2c(target) => write!(f, "h2c://{target}"),
            Self::Folder(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
        }
    }
}

/// As it stands on a command line.
impl fmt::Display for ServiceForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.to {
            Behind::Http(target) => write!(f, "http://{name}:{target}")?,
            Behind::H2c(target) => write!(f, "h2c://{name}:{target}")?,
            Behind::Folder(path) => write!(f, "http://{name}:{}", path.to_string_lossy().escape_debug())?,
        }
        if self.weight != Weight::default() {
            write!(f, "?weight={}", self.weight.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_shown() {
        for (form, to, protocol) in [
            ("http://shop:127.0.0.1:3000", "http://127.0.0.1:3000", Protocol::Http1),
            ("http://shop:[::1]:3000?weight=2", "http://[::1]:3000", Protocol::Http1),
            ("h2c://shop:inner.example:50051", "h2c://inner.example:50051", Protocol::H2c),
            ("http://shop:/srv/files", "/srv/files", Protocol::Http1),
            ("http://shop:/srv/a:b?weight=1000", "/srv/a:b", Protocol::Http1),
        ] {
            let read: ServiceForm = form.parse().unwrap();
            assert_eq!((&*read.to_string(), &*read.name.to_string()), (form, "shop"));
            assert_eq!((&*read.to.to_string(), read.to.protocol()), (to, protocol));
            assert_eq!(to.parse::<Behind>().unwrap(), read.to);
        }
        assert_eq!("http://shop:h:1?weight=7".parse::<ServiceForm>().unwrap().weight.get(), 7);
        assert_eq!("http://h".parse::<Behind>().unwrap().to_string(), "http://h:80");
        assert_eq!("http://[::1]/".parse::<Behind>().unwrap().to_string(), "http://[::1]:80");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_mend() {
        for (form, part) in [
            ("http://shop", "write http://NAME:HOST:PORT"),
            ("http://shop:3000", "write http://NAME:HOST:PORT"),
            ("http://shop:files", "write http://NAME:HOST:PORT"),
            ("tcp://shop:h:1", "write http://NAME:HOST:PORT"),
            ("shop", "write http://NAME:HOST:PORT"),
            ("http://Shop:h:1", "holds 'S'"),
            ("http://:h:1", "name is empty"),
            ("http://shop:h:0", "port 0"),
            ("http://shop:::1:80", "in brackets"),
            ("http://shop:h:1/x", "is not HOST:PORT"),
            ("https://shop:h:1", "over https is not to be had"),
            ("h2c://shop:/srv", "write http://NAME:/FOLDER"),
            ("http://shop:h:1?weight=0", "\"0\" is no weight: write a number from 1 to 1000"),
            ("http://shop:h:1?weight=1001", "\"1001\" is no weight"),
            ("http://shop:h:1?weight=+2", "\"+2\" is no weight"),
            ("http://shop:h:1?weight=", "\"\" is no weight"),
            ("http://shop:h:1?proxy=v2", "no option \"proxy=v2\": it has weight=N"),
        ] {
            let error = form.parse::<ServiceForm>().unwrap_err().to_string();
            assert!(error.contains(part), "{form}: {error}");
        }
        for (behind, part) in [
            ("", "is no web server and no folder"),
            ("127.0.0.1:3000", "is no web server and no folder"),
            ("tcp://h:1", "is no web server and no folder"),
            ("srv/files", "is no whole path"),
            ("./files", "is no whole path"),
            ("http://h:1/x", "leave out what stands behind its port"),
            ("http://u@h:1", "leave out what stands behind its port"),
            ("http://", "leads nowhere"),
            ("http://h:x", "leads nowhere"),
            ("https://h", "over https is not to be had"),
        ] {
            let error = behind.parse::<Behind>().unwrap_err().to_string();
            assert!(error.contains(part), "{behind}: {error}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let behind = |path: PathBuf| path.to_str().unwrap().parse::<Behind>().unwrap();
        assert_eq!(behind(folder.path().to_owned()).check(), Ok(()));
        let error = behind(folder.path().join("none")).check().unwrap_err();
        assert!(error.to_string().contains("make it, or write another"), "{error}");
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = behind(folder.path().join("file")).check().unwrap_err();
        assert!(error.to_string().contains("is no folder"), "{error}");
    }

    #[test]
    fn what_stands_behind_tells_instances_apart_and_a_weight_does_not() {
        let instance = |form: &str| form.parse::<ServiceForm>().unwrap().instance();
        assert_eq!(instance("http://shop:h:1"), instance("http://shop:h:1?weight=2"));
        assert_ne!(instance("http://shop:h:1"), instance("http://shop:h:2"));
        assert_ne!(instance("http://shop:h:1"), instance("h2c://shop:h:1"));
    }
}
