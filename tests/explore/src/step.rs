//! What can happen next: the steps of which an interleaving consists, and how they are written down.

use std::fmt;
use std::str::FromStr;

/// The index of the client's end.
pub const CLIENT: usize = 0;
/// The index of the server's end.
pub const SERVER: usize = 1;
/// What the ends are called.
pub const NAMES: [&str; 2] = ["client", "server"];

/// One thing that happens. Between two of them everything stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A tunnel of an end has room for one more batch, and pulls it from the session.
    Pull {
        /// The end that sends.
        end: usize,
        /// The tunnel.
        tunnel: usize,
    },
    /// The front batch of a tunnel, or its Hello, Welcome or Reject, arrives.
    Deliver {
        /// The end that receives.
        end: usize,
        /// The tunnel.
        tunnel: usize,
    },
    /// An end hears that a tunnel's carrier is dead; what was on the way to it is lost.
    Down {
        /// The end that hears it.
        end: usize,
        /// The tunnel.
        tunnel: usize,
    },
    /// An end retires a tunnel.
    Retire {
        /// The end that leaves.
        end: usize,
        /// The tunnel.
        tunnel: usize,
    },
    /// The program at an end does the next thing that it wants to do with a connection.
    Program {
        /// The end.
        end: usize,
        /// The connection, by its place in the world's list.
        connection: usize,
    },
    /// The program at an end reads all that there is; only where reading is not at once.
    Read {
        /// The end.
        end: usize,
        /// The connection, by its place in the world's list.
        connection: usize,
    },
    /// The client dials one more tunnel.
    Dial,
    /// Time passes until a timer shows an effect.
    Wait,
}

impl Step {
    /// This step in a byte: three bits of kind, one of the end, four of the tunnel or connection.
    pub fn code(self) -> u8 {
        let (kind, end, index) = match self {
            Self::Pull { end, tunnel } => (0, end, tunnel),
            Self::Deliver { end, tunnel } => (1, end, tunnel),
            Self::Down { end, tunnel } => (2, end, tunnel),
            Self::Retire { end, tunnel } => (3, end, tunnel),
            Self::Program { end, connection } => (4, end, connection),
            Self::Read { end, connection } => (5, end, connection),
            Self::Dial => (6, 0, 0),
            Self::Wait => (7, 0, 0),
        };
        (kind << 5) | ((end as u8) << 4) | index as u8
    }

    /// What [`code`](Self::code) wrote.
    pub fn from_code(code: u8) -> Self {
        let (end, index) = (usize::from(code >> 4 & 1), usize::from(code & 15));
        match code >> 5 {
            0 => Self::Pull { end, tunnel: index },
            1 => Self::Deliver { end, tunnel: index },
            2 => Self::Down { end, tunnel: index },
            3 => Self::Retire { end, tunnel: index },
            4 => Self::Program { end, connection: index },
            5 => Self::Read { end, connection: index },
            6 => Self::Dial,
            _ => Self::Wait,
        }
    }
}

/// Short, as a replay names it: `pc0` is "the client pulls on tunnel 0".
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, end, index) = match *self {
            Self::Pull { end, tunnel } => ('p', end, tunnel),
            Self::Deliver { end, tunnel } => ('d', end, tunnel),
            Self::Down { end, tunnel } => ('x', end, tunnel),
            Self::Retire { end, tunnel } => ('l', end, tunnel),
            Self::Program { end, connection } => ('o', end, connection),
            Self::Read { end, connection } => ('r', end, connection),
            Self::Dial => return f.write_str("dial"),
            Self::Wait => return f.write_str("wait"),
        };
        write!(f, "{kind}{}{index}", ['c', 's'][end])
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dial" => return Ok(Self::Dial),
            "wait" => return Ok(Self::Wait),
            _ => {}
        }
        let unknown =
            || format!("{text:?} is no step: write dial, wait, or one of pdxlor, then c or s, then 0 to 15");
        let mut chars = text.chars();
        let kind = chars.next().and_then(|kind| "pdxlor".find(kind)).ok_or_else(unknown)?;
        let end = chars.next().and_then(|end| "cs".find(end)).ok_or_else(unknown)?;
        let index: usize = chars.as_str().parse().ok().filter(|index| *index < 16).ok_or_else(unknown)?;
        Ok(Self::from_code(((kind << 5) | (end << 4) | index) as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_survive_being_written_down() {
        for code in 0..=u8::MAX {
            let step = Step::from_code(code);
            assert_eq!(step.to_string().parse(), Ok(step));
            assert_eq!(Step::from_code(step.code()), step);
        }
        assert!(
            "pc16".parse::<Step>().is_err() && "p".parse::<Step>().is_err() && "".parse::<Step>().is_err()
        );
    }
}
