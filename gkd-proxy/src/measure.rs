//! Measuring the way between two ends: what is asked for ([`Request`]), what is answered, and the end that does it
//! (`serve`).
//!
//! A connection to the destination [`Control::Measure`](crate::destination::Control::Measure) carries one request of
//! [`Request::LEN`] bytes. The other end answers with one byte, 0 for yes, else why not, and does what was asked for
//! until so many bytes were moved, the time is over, or the opener ends or resets the connection; then it ends its
//! direction. Numbers have their most significant byte first.
//!
//! | bytes | of a request |
//! |---|---|
//! | 1 | what: 1 send, 2 swallow, 3 echo |
//! | 8 | how many bytes at the most; not above [`MAX_BYTES`] |
//! | 4 | for how long at the most, in milliseconds; not above [`MAX_TIME`] |
//!
//! Who swallows tells with a [`Report`] of [`Report::LEN`] bytes how much has arrived, some twenty times a second while
//! something does, and once at the end.
//!
//! Nobody gets out of this more than a download or an upload of the same size would give: what is sent goes to a peer
//! that proved its key, at the pace at which it reads.

mod serve;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use serve::MeasureError;
pub(crate) use serve::Measuring;

/// The longest that may be asked for.
pub const MAX_TIME: Duration = Duration::from_secs(60);

/// The most bytes that may be asked for: what a line of 10 Gbit/s carries in 14 s.
pub const MAX_BYTES: u64 = 16 << 30;

/// What the other end is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Send bytes.
    Send,
    /// Take bytes, and report how many.
    Swallow,
    /// Send back what arrives.
    Echo,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the other end is to do.
    pub task: Task,
    /// Until so many bytes were moved.
    pub bytes: u64,
    /// For so long; whole milliseconds.
    pub time: Duration,
}

/// Why a request is not met; the answer's byte is the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It asks for something else than to send, swallow or echo.
    #[error("what it asks for is not offered")]
    Unknown = 1,
    /// It asks for more than [`MAX_BYTES`] or [`MAX_TIME`].
    #[error("it asks for more than {MAX_BYTES} bytes or {} s", MAX_TIME.as_secs())]
    TooMuch = 2,
}

/// The answer's byte where a request is met.
pub const ACCEPTED: u8 = 0;

impl Request {
    /// Bytes of one.
    pub const LEN: usize = 13;

    /// The bytes for the connection.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let task = match self.task {
            Task::Send => 1,
            Task::Swallow => 2,
            Task::Echo => 3,
        };
        let millis = u32::try_from(self.time.as_millis()).unwrap_or(u32::MAX);
        let mut out = [0; Self::LEN];
        out[0] = task;
        out[1..9].copy_from_slice(&self.bytes.to_be_bytes());
        out[9..].copy_from_slice(&millis.to_be_bytes());
        out
    }

    /// What bytes ask for.
    ///
    /// # Errors
    /// It is not offered, or too much.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Refusal> {
        let [task, b0, b1, b2, b3, b4, b5, b6, b7, m0, m1, m2, m3] = *bytes;
        let task = match task {
            1 => Task::Send,
            2 => Task::Swallow,
            3 => Task::Echo,
            _ => return Err(Refusal::Unknown),
        };
        let bytes = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        let time = Duration::from_millis(u32::from_be_bytes([m0, m1, m2, m3]).into());
        if bytes > MAX_BYTES || time > MAX_TIME {
            return Err(Refusal::TooMuch);
        }
        Ok(Self { task, bytes, time })
    }
}

impl Refusal {
    /// What an answer's byte says; a later version may say what this one does not know.
    pub fn from_answer(answer: u8) -> Option<Self> {
        match answer {
            ACCEPTED => None,
            2 => Some(Self::TooMuch),
            _ => Some(Self::Unknown),
        }
    }
}

/// How much has arrived at the end that swallows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Since it said yes, by its own clock; whole microseconds.
    pub elapsed: Duration,
    /// Bytes since then.
    pub bytes: u64,
}

impl Report {
    /// Bytes of one: microseconds and bytes, 8 each.
    pub const LEN: usize = 16;

    /// The bytes for the connection.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let micros = u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX);
        (u128::from(micros) << 64 | u128::from(self.bytes)).to_be_bytes()
    }

    /// What bytes tell.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let both = u128::from_be_bytes(*bytes);
        Self { elapsed: Duration::from_micros((both >> 64) as u64), bytes: both as u64 }
    }
}
