//! The program at one end of a connection, and what it holds the session to: content by position, each event once
//! and only when it is true.

use bytes::Bytes;
use gkd_proto::id::ConnectionId;
use gkd_proto::packet::ResetCode;

/// What became of a connection, as its program knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// Not opened, or not accepted yet.
    #[default]
    Unborn,
    /// The program holds it.
    Held,
    /// The session told that it was reset.
    Reset(ResetCode),
    /// The session told that the destination refused.
    Refused,
    /// The session told that it has ended.
    Closed,
    /// The program reset it, or refused it.
    Ended,
    /// The program dropped it.
    Released,
}

/// The program at one end of a connection.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Program {
    /// How many of its later steps it took.
    pub taken: usize,
    /// Under which id it holds the connection.
    pub id: Option<ConnectionId>,
    /// What became of it.
    pub fate: Fate,
    /// Bytes written.
    pub written: usize,
    /// It wrote its last.
    pub finished: bool,
    /// Bytes read.
    pub read: usize,
    /// It read to the end.
    pub at_end: bool,
    /// It found nothing to read, and waits for Readable.
    pub waits: bool,
    /// The opener was told that the destination was reached.
    pub connected: bool,
    /// It was told that the other end holds everything.
    pub acknowledged: bool,
}

impl Program {
    /// Whether the program has the connection in hand.
    pub(crate) fn is_held(&self) -> bool {
        self.fate == Fate::Held
    }

    /// Whether it ended the connection itself.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.fate, Fate::Ended | Fate::Released)
    }

    /// Whether it read everything that `writer` wrote, to the end.
    pub(crate) fn has_all_of(&self, writer: &Self) -> bool {
        writer.finished && self.at_end && self.read == writer.written
    }

    /// Takes what was read: it must be what `writer` wrote at this place.
    pub(crate) fn take(&mut self, data: &Bytes, writer: &Self, content: &Bytes) -> Result<(), String> {
        let end = self.read + data.len();
        if end > writer.written {
            return Err(format!("{end} bytes were read of {} that were written", writer.written));
        }
        if data[..] != content[self.read..end] {
            return Err(format!("bytes {} to {end} are not what was written there", self.read));
        }
        self.read = end;
        Ok(())
    }
}

/// What both programs of one connection must be able to say when everything has come to rest: all of what `writer`
/// wrote arrived at `reader`, or the connection was ended, and who did not end it was told.
pub(crate) fn promise_kept(writer: &Program, reader: &Program) -> Result<(), String> {
    match reader.fate {
        Fate::Unborn if matches!(writer.fate, Fate::Unborn | Fate::Ended) => Ok(()),
        Fate::Unborn => Err("the connection was never accepted".into()),
        Fate::Held | Fate::Released if writer.fate == Fate::Released => {
            let all = reader.has_all_of(writer) || reader.fate == Fate::Released;
            let missing =
                || format!("{} of {} bytes arrived of a dropped connection", reader.read, writer.written);
            if all { Ok(()) } else { Err(missing()) }
        }
        Fate::Held if writer.is_held() => held_by_both(writer, reader),
        // It was over for the end that reset it: both directions were whole.
        Fate::Held if writer.fate == Fate::Ended && reader.has_all_of(writer) => Ok(()),
        Fate::Held => Err(format!("one end knows that it ended ({:?}), the other was not told", writer.fate)),
        Fate::Reset(_) | Fate::Refused if writer.gave_up() => Ok(()),
        Fate::Reset(code) => Err(format!("it was reset ({code}), and nobody wanted that")),
        Fate::Refused => Err("it was refused, and nobody wanted that".into()),
        // Of a direction that is acknowledged to its end, the other end's program may drop what it did not read.
        Fate::Released if writer.is_held() && !writer.acknowledged && reader.read < writer.written => {
            Err("what nobody read was dropped, and its writer was not told".into())
        }
        Fate::Ended | Fate::Released | Fate::Closed => Ok(()),
    }
}

fn held_by_both(writer: &Program, reader: &Program) -> Result<(), String> {
    let (read, written) = (reader.read, writer.written);
    if read != written {
        return Err(format!("{read} bytes arrived of {written}"));
    }
    if reader.at_end != writer.finished {
        return Err(format!("the end was written: {}, and read: {}", writer.finished, reader.at_end));
    }
    if writer.finished && !writer.acknowledged {
        return Err("everything arrived, and its writer was not told".into());
    }
    Ok(())
}
