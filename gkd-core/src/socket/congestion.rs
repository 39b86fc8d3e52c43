//! Congestion control of tunnels: the best that the kernel permits, its own choice, or one by name; and that what stays
//! on this host is not paced.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;

use socket2::SockRef;

/// Which congestion control the tunnels use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// `bbr` where the kernel permits it, else the system's own. Between two ends on one host none that paces: see
    /// [`spare_pacing`].
    #[default]
    Auto,
    /// The system's own.
    System,
    /// This one; that it is not to be had is an error.
    Name(String),
}

/// What `Auto` tries: it keeps a line with random loss full, which is what tunnels are for.
const PREFERRED: &str = "bbr";

/// What there always is, for everybody, and does not pace.
const UNPACED: &str = "reno";

/// The longest name, one less than the kernel's `TCP_CA_NAME_MAX` with its final zero.
const NAME_MAX: usize = 15;

/// A congestion control that is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CongestionError {
    /// Not even a name.
    #[error("{0:?} is no congestion control: write auto, system, or a name such as bbr or cubic")]
    NotAName(String),
    /// The kernel refused it.
    #[error(
        "the congestion control {name} is not to be had ({cause}): the kernel offers {available}, \
         of which users without privilege may take {allowed}"
    )]
    Unavailable {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        cause: String,
        /// What `tcp_available_congestion_control` lists.
        available: String,
        /// What `tcp_allowed_congestion_control` lists.
        allowed: String,
    },
}

impl Congestion {
    /// Whether this one is to be had, tried on a socket of its own: for telling at the start, before the first
    /// tunnel.
    ///
    /// # Errors
    /// A name that the kernel refuses, with what it offers.
    pub fn check(&self) -> Result<(), CongestionError> {
        let Self::Name(name) = self else { return Ok(()) };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .map_err(|error| unavailable(name, &error))?;
        self.set(&SockRef::from(&socket), false)
    }

    /// Sets a socket whose other end is on this host, or is not.
    pub(super) fn set(&self, socket: &SockRef<'_>, on_this_host: bool) -> Result<(), CongestionError> {
        match self {
            Self::System => Ok(()),
            Self::Auto if on_this_host => {
                spare_pacing(socket);
                Ok(())
            }
            Self::Auto => {
                super::soft("TCP_CONGESTION", set(socket, PREFERRED));
                Ok(())
            }
            Self::Name(name) => set(socket, name).map_err(|error| unavailable(name, &error)),
        }
    }
}

/// Has a socket that is not connected yet, or a listening one for those that it accepts, send what there is at once where
/// the system's own congestion control is `bbr`, which paces: it hands each burst to a timer of its own. For sockets whose
/// other end is on this host. Nothing is lost there and no line can be filled, and the timers cost a sixth of the time that
/// bytes take. On a connected socket it is of no use: the kernel goes on pacing.
pub fn spare_pacing(socket: &SockRef<'_>) {
    if system_paces() {
        super::soft("TCP_CONGESTION", set(socket, UNPACED));
    }
}

/// Whether the system's own congestion control is the one that paces, as it was when this was asked first; and this process
/// may take it, or those from elsewhere that a listener accepts could not be given it again.
fn system_paces() -> bool {
    static PACES: OnceLock<bool> = OnceLock::new();
    *PACES.get_or_init(|| {
        let own = std::fs::read("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
        let is_own = own.trim_ascii_end() == PREFERRED.as_bytes();
        is_own && Congestion::Name(PREFERRED.to_owned()).check().is_ok()
    })
}

/// Whether a socket's is BBR.
#[cfg(target_os = "linux")]
pub(super) fn is_bbr(socket: &SockRef<'_>) -> bool {
    socket
        .tcp_congestion()
        .is_ok_and(|name| name.split(|byte| *byte == 0).next() == Some(PREFERRED.as_bytes()))
}

#[cfg(target_os = "linux")]
fn set(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

#[cfg(not(target_os = "linux"))]
fn set(_: &SockRef<'_>, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn unavailable(name: &str, error: &io::Error) -> CongestionError {
    let list = |which: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control"))
            .map(|list| list.split_whitespace().collect::<Vec<_>>().join(", "))
            .unwrap_or_else(|_| "what it does not tell".to_owned())
    };
    CongestionError::Unavailable {
        name: name.to_owned(),
        cause: error.to_string(),
        available: list("available"),
        allowed: list("allowed"),
    }
}

impl FromStr for Congestion {
    type Err = CongestionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match text {
            "auto" => Ok(Self::Auto),
            "system" => Ok(Self::System),
            name if !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(known) => {
                Ok(Self::Name(name.to_owned()))
            }
            other => Err(CongestionError::NotAName(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Name(name) => name,
        })
    }
}
