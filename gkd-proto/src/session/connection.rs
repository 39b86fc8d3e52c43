//! The state of one connection: how it was opened, its two directions, how it ends.
//!
//! ```text
//!                     Connect seen             reset(), Reset seen
//!   Expected ─────────────────────▶ Open ─────────────────────────▶ Settling ──▶ forgotten
//!      (Data before its Connect)     │                                 ▲
//!                                    │ connected(Err)                  │ Reset seen
//!                                    └───────────────▶ Refused ────────┘
//! ```
//! An open connection that the program released is also forgotten, without any Reset, when both directions
//! have ended and all its own packets are acknowledged.

use std::time::Instant;

use bytes::Bytes;

use super::datagrams::Datagrams;
use super::once::Once;
use super::receive::ReceiveHalf;
use super::send::SendHalf;
use crate::id::{ConnectionId, Side};
use crate::packet::{DialError, ResetCode};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Packets of it came before its Connect.
    Expected,
    /// Both directions can be used.
    Open,
    /// The dial failed, and the other end was told; it answers with a Reset.
    Refused,
    /// Reset at this end; what is left is to settle the accounts.
    Settling {
        /// The code of the Reset that this end sends.
        code: ResetCode,
        /// The other end's total is known, from its Reset or because all of its packets arrived.
        total_known: bool,
    },
}

/// Where a connection stands in the order of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Nothing to send, or nothing that may be sent now.
    #[default]
    Out,
    /// Among those that were empty and have one quantum.
    Sparse,
    /// Among those with a backlog.
    Bulk,
}

/// One connection.
#[derive(Clone, Debug, Hash)]
pub(super) struct ConnectionState {
    pub(super) id: ConnectionId,
    pub(super) stage: Stage,
    /// Whether this end opened it.
    pub(super) ours: bool,
    /// Of a connection that this end opened, until its Connect is acknowledged; of one that was accepted, never.
    pub(super) destination: Bytes,
    pub(super) connect: Once,
    /// The other end is known to have seen the id.
    pub(super) announced: bool,
    /// The answer: received, or given by this end.
    pub(super) dial: Option<Result<(), DialError>>,
    pub(super) connected: Once,
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
    pub(super) reset: Once,
    pub(super) blocked_due: bool,
    /// The program dropped it.
    pub(super) released: bool,
    /// Data arrived that nobody will read.
    pub(super) discarded: bool,
    /// An Acknowledged event was given.
    pub(super) told_acknowledged: bool,
    pub(super) datagrams: Option<Box<Datagrams>>,

    /// It is in the session's queue of connections with control packets due.
    pub(super) in_control_queue: bool,
    /// It is in the session's queue of connections with packets to send again.
    pub(super) in_resend_queue: bool,
    pub(super) place: Place,
    pub(super) deficit: i64,
    /// Bytes that were cut since it last had nothing to send.
    pub(super) run: u64,
    /// When bytes last moved in either direction, for the time-out of half-closed connections.
    pub(super) active_at: Instant,
    /// When the program last read, for the choice of whom to end when the session is blocked.
    pub(super) read_at: Instant,
}

impl ConnectionState {
    pub(super) fn new(
        now: Instant,
        id: ConnectionId,
        side: Side,
        receive_window: u64,
        send_credit: u64,
    ) -> Self {
        let ours = id.opener() == side;
        let mut send = SendHalf::default();
        send.credit.raise(send_credit);
        Self {
            id,
            stage: if ours { Stage::Open } else { Stage::Expected },
            ours,
            destination: Bytes::new(),
            connect: if ours { Once::Due } else { Once::Idle },
            announced: false,
            dial: None,
            connected: Once::Idle,
            send,
            receive: ReceiveHalf::new(receive_window),
            reset: Once::Idle,
            blocked_due: false,
            released: false,
            discarded: false,
            told_acknowledged: false,
            datagrams: None,
            in_control_queue: false,
            in_resend_queue: false,
            place: Place::Out,
            deficit: 0,
            run: 0,
            active_at: now,
            read_at: now,
        }
    }

    /// It was reset, and only accounts are left to settle.
    pub(super) fn is_settling(&self) -> bool {
        matches!(self.stage, Stage::Settling { .. })
    }

    /// The program can read and write it.
    pub(super) fn is_usable(&self) -> bool {
        self.stage == Stage::Open && !self.released
    }

    /// What arrives for it is thrown away: nobody will read it.
    pub(super) fn discards(&self) -> bool {
        self.released || self.stage == Stage::Refused
    }

    /// Everything written and the Finish are held by the other end.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.send.finish == Once::Acked && self.send.nothing_outstanding()
    }

    /// One direction has ended and the other has not.
    pub(super) fn is_half_closed(&self) -> bool {
        self.stage == Stage::Open && (self.send.finishing != self.receive.is_finished())
    }

    /// Nothing of it is needed any more.
    pub(super) fn is_over(&self) -> bool {
        match self.stage {
            Stage::Settling { total_known, .. } => total_known && self.reset.is_settled(),
            Stage::Open => {
                self.released
                    && self.is_acknowledged()
                    && self.receive.is_at_end()
                    && self.connect.is_settled()
                    && self.connected.is_settled()
            }
            Stage::Expected | Stage::Refused => false,
        }
    }

    /// It has a control packet to send.
    pub(super) fn has_control(&self) -> bool {
        self.connect == Once::Due
            || self.connected == Once::Due
            || self.send.finish == Once::Due
            || self.reset == Once::Due
            || self.receive.credit_due
            || self.blocked_due
    }

    /// Its own direction runs.
    pub(super) fn is_sending(&self) -> bool {
        self.stage == Stage::Open
    }
}
