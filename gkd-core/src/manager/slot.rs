//! What is known of one connection beside its session: who waits for it, and how it ended.

use std::task::Waker;

use gkd_proto::packet::{DialError, ResetCode};

use super::batch::Wakers;

/// One connection that has a handle, or waits to be accepted.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Waits for bytes, or for the end of them.
    pub(crate) reader: Option<Waker>,
    /// Waits for room, or for the acknowledgement of a finished direction.
    pub(crate) writer: Option<Waker>,
    /// Waits for a reset.
    pub(crate) reset_waker: Option<Waker>,
    /// Those that hardly ever wait, and mostly not for long: apart, for there are many slots.
    pub(super) rare: Option<Box<Rare>>,
    /// The far end's answer.
    pub(crate) answer: Option<Result<(), DialError>>,
    /// It was reset; the session does not know it any more.
    pub(crate) reset: Option<ResetCode>,
    /// The session ended; what arrived whole can still be read.
    pub(crate) ended: bool,
    /// This end's direction was finished.
    pub(crate) finished: bool,
    /// … and the other end holds all of it.
    pub(crate) acknowledged: bool,
    /// The reader saw the end.
    pub(crate) read_end: bool,
    /// The program at this end took or gave bytes.
    pub(crate) used: bool,
    /// The dial was answered.
    pub(crate) confirmed: bool,
    /// Its place among those that wait to be accepted, while it does.
    pub(crate) waiting: Option<u64>,
}

/// Who waits for what happens once, or is rare.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Waits for a datagram.
    pub(crate) datagram: Option<Waker>,
    /// Waits for the far end's answer.
    pub(crate) answer: Option<Waker>,
}

impl Slot {
    /// Who waits for what is rare, to be put in its place.
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whoever waits for a datagram.
    pub(crate) fn take_datagram_waker(&mut self) -> Option<Waker> {
        self.rare.as_mut()?.datagram.take()
    }

    /// Whoever waits for the far end's answer, which comes once. Mostly nobody waits for anything rare behind it.
    pub(crate) fn take_answer_waker(&mut self) -> Option<Waker> {
        let waker = self.rare.as_mut()?.answer.take();
        self.rare.take_if(|rare| rare.datagram.is_none());
        waker
    }

    /// Both directions came to a good end; what becomes of the session is of no matter to it.
    pub(crate) fn is_over(&self) -> bool {
        self.read_end && self.acknowledged
    }

    /// Why nothing can be written any more, once that is so.
    pub(crate) fn cut_off(&self) -> Option<ResetCode> {
        self.reset.or(self.ended.then_some(ResetCode::SESSION))
    }

    /// Wakes everybody: there is nothing more to wait for.
    pub(crate) fn wake_all(&mut self, wakers: &mut Wakers) {
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
        wakers.extend(self.reset_waker.take());
        if let Some(rare) = self.rare.take() {
            wakers.extend([rare.datagram, rare.answer].into_iter().flatten());
        }
    }
}

/// Puts a waker in its place; the one that stood there goes to `replaced`, to be dropped behind the lock.
pub(crate) fn register(place: &mut Option<Waker>, waker: &Waker, replaced: &mut Wakers) {
    match place {
        Some(standing) if standing.will_wake(waker) => {}
        _ => replaced.extend(place.replace(waker.clone())),
    }
}
