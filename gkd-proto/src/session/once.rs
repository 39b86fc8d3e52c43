//! A control packet of which the other end must hear once, whatever becomes of the tunnels.

/// Where such a packet is.
///
/// ```text
///            due()          sent()          acked()
///   Idle ───────────▶ Due ─────────▶ Sent ─────────▶ Acked
///                      ▲               │
///                      └───────────────┘
///                    lost(): its tunnel died
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Once {
    /// Not wanted yet.
    #[default]
    Idle,
    /// To be sent.
    Due,
    /// Sent, and not acknowledged. Several tunnels may carry a copy.
    Sent,
    /// The other end has it.
    Acked,
}

impl Once {
    /// It is wanted; a second wish changes nothing.
    pub(super) fn due(&mut self) {
        if *self == Self::Idle {
            *self = Self::Due;
        }
    }

    pub(super) fn sent(&mut self) {
        if *self == Self::Due {
            *self = Self::Sent;
        }
    }

    pub(super) fn acked(&mut self) {
        *self = Self::Acked;
    }

    /// The tunnel that carried it is dead or suspect. Tells whether it is due again.
    pub(super) fn lost(&mut self) -> bool {
        let lost = *self == Self::Sent;
        if lost {
            *self = Self::Due;
        }
        lost
    }

    /// Nothing is left to do: never wanted, or acknowledged.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Idle | Self::Acked)
    }
}
