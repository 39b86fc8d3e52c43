//! What can happen in a scenario, in data and in words.

use std::fmt;
use std::time::Duration;

use gkd_proto::packet::{DialError, ResetCode};

use crate::pair::name;
use crate::program::{Leaving, Style};
use crate::wire::{Kernel, Path};

/// The what-th of those that there are when its turn comes, counted round.
pub type Nth = u64;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client dials a tunnel, and again so long after it ended, if at all.
    Dial {
        /// Over this path.
        path: Path,
        /// How long after its end it is dialled again.
        again: Option<Duration>,
    },
    /// A tunnel is cut.
    Cut {
        /// Which.
        tunnel: Nth,
        /// So many percent of what is on the way still arrive.
        keep: u64,
        /// When each end hears of it, if it does.
        heard: [Option<Duration>; 2],
    },
    /// Nothing moves on a tunnel, of what the client sends or of what the server does, for so long.
    Stall {
        /// Which.
        tunnel: Nth,
        /// What the client sends, what the server sends.
        ways: [bool; 2],
        /// So long; for ever if none.
        lasts: Option<Duration>,
    },
    /// Every tunnel is cut or stands still, and none can be dialled, for so long.
    Part {
        /// So long.
        lasts: Duration,
        /// When each end hears of it; where none does the tunnels only stand still.
        heard: [Option<Duration>; 2],
    },
    /// An end retires a tunnel.
    Retire {
        /// Which end.
        end: usize,
        /// Which tunnel.
        tunnel: Nth,
    },
    /// An end pings every tunnel.
    Probe {
        /// Which end.
        end: usize,
    },
    /// An end opens a connection.
    Open {
        /// Which end.
        end: usize,
        /// What both ends do with it.
        plan: Box<Plan>,
    },
    /// A reader stops for so long.
    Stop {
        /// At which end.
        end: usize,
        /// Of which connection.
        connection: Nth,
        /// So long.
        lasts: Duration,
    },
    /// A program resets a connection.
    Reset {
        /// At which end.
        end: usize,
        /// Which.
        connection: Nth,
        /// Why.
        code: ResetCode,
    },
    /// A program drops a connection, whatever it has written and read.
    Release {
        /// At which end.
        end: usize,
        /// Which.
        connection: Nth,
    },
    /// A program sends datagrams, and takes those that came.
    Datagrams {
        /// At which end.
        end: usize,
        /// On which connection.
        connection: Nth,
        /// How many.
        count: u64,
        /// Of how many bytes each.
        size: usize,
    },
    /// An end drains.
    Drain {
        /// Which.
        end: usize,
        /// Why.
        reason: u64,
    },
    /// An end closes the session.
    Close {
        /// Which.
        end: usize,
    },
    /// The server process starts anew; the client hears of it so long after, if at all.
    Restart {
        /// When the client hears.
        heard: Option<Duration>,
    },
}

/// What both ends do with a connection. Arrays are by end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it is to lead, so many bytes.
    pub destination: usize,
    /// What each end writes.
    pub bytes: [u64; 2],
    /// Whether it finishes then; if not, only when all is over.
    pub finish: [bool; 2],
    /// What the acceptor writes once it has read the end.
    pub reply: u64,
    /// How each end writes and reads.
    pub style: [Style; 2],
    /// When each end leaves.
    pub leaving: [Leaving; 2],
    /// How long the acceptor takes to answer.
    pub answers_after: Duration,
    /// What it answers.
    pub answer: Result<(), DialError>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { path, again } => {
                write!(f, "client dials a tunnel over {path}")?;
                match again {
                    Some(again) => write!(f, ", again {} after its end", Time(*again)),
                    None => write!(f, ", once"),
                }
            }
            Self::Cut { tunnel, keep, heard } => {
                write!(
                    f,
                    "tunnel #{tunnel} is cut, {keep}% of what is on the way still arrive; {}",
                    Heard(heard)
                )
            }
            Self::Stall { tunnel, ways, lasts } => {
                let ways = match ways {
                    [true, true] => "both ways",
                    [true, false] => "from the client",
                    _ => "from the server",
                };
                write!(f, "tunnel #{tunnel} goes silent {ways} {}", Lasts(lasts))
            }
            Self::Part { lasts, heard: [None, None] } => {
                write!(f, "every tunnel stands still and none can be dialled for {}", Time(*lasts))
            }
            Self::Part { lasts, heard } => {
                let lasts = Time(*lasts);
                write!(f, "every tunnel is cut and none can be dialled for {lasts}; {}", Heard(heard))
            }
            Self::Retire { end, tunnel } => write!(f, "{} retires tunnel #{tunnel}", name(*end)),
            Self::Probe { end } => write!(f, "{} pings every tunnel", name(*end)),
            Self::Open { end, plan } => write!(f, "{} opens a connection: {plan}", name(*end)),
            Self::Stop { end, connection, lasts } => {
                write!(f, "{}'s reader of connection #{connection} stops for {}", name(*end), Time(*lasts))
            }
            Self::Reset { end, connection, code } => {
                write!(f, "{} resets connection #{connection} (code {})", name(*end), code.0)
            }
            Self::Release { end, connection } => write!(f, "{} drops connection #{connection}", name(*end)),
            Self::Datagrams { end, connection, count, size } => {
                write!(
                    f,
                    "{} sends {count} datagrams of {size} bytes on connection #{connection}",
                    name(*end)
                )
            }
            Self::Drain { end, reason } => write!(f, "{} drains (reason {reason})", name(*end)),
            Self::Close { end } => write!(f, "{} closes the session", name(*end)),
            Self::Restart { heard } => {
                write!(f, "the server process starts anew; ")?;
                match heard {
                    Some(heard) => write!(f, "client hears of it after {}", Time(*heard)),
                    None => write!(f, "client does not hear of it"),
                }
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, delay, socket, queue, kernel } = self;
        let kernel = match kernel {
            Kernel::Absent => "the kernel silent",
            Kernel::Right => "the kernel right",
            Kernel::Smoothed => "the kernel smoothing",
            Kernel::Near => "the kernel seeing 50 us",
        };
        write!(f, "{rate} B/s, {} one way, a socket of {socket} B, ", Time(*delay))?;
        write!(f, "a queue of {}, {kernel}", Time(*queue))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, bytes, finish, reply, style, leaving, answers_after, answer } = self;
        write!(f, "{destination} B of destination, answered {answer:?} after {}", Time(*answers_after))?;
        for end in 0..2 {
            let Style { write, by_bytes, read, vary } = style[end];
            let how = if by_bytes { "buffers" } else { "slices" };
            let upto = if vary { "up to " } else { "" };
            let then = if finish[end] { "finishes" } else { "keeps it open" };
            write!(f, "; {} writes {} B in {how} of {upto}{write} and {then}", name(end), bytes[end])?;
            write!(f, ", reads {upto}{read} at a time, {:?}", leaving[end])?;
        }
        if *reply > 0 { write!(f, "; {reply} B in reply") } else { Ok(()) }
    }
}

/// A time in words.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1000.0;
        if millis < 1000.0 { write!(f, "{millis:.3} ms") } else { write!(f, "{:.3} s", millis / 1000.0) }
    }
}

struct Lasts<'a>(&'a Option<Duration>);

impl fmt::Display for Lasts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(lasts) => write!(f, "for {}", Time(*lasts)),
            None => write!(f, "for ever"),
        }
    }
}

struct Heard<'a>(&'a [Option<Duration>; 2]);

impl fmt::Display for Heard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (end, heard) in self.0.iter().enumerate() {
            let comma = if end == 0 { "" } else { ", " };
            match heard {
                Some(after) => write!(f, "{comma}{} hears after {}", name(end), Time(*after))?,
                None => write!(f, "{comma}{} does not hear", name(end))?,
            }
        }
        Ok(())
    }
}
