//! What both programs tell of their sessions: the part of the documents of `status` that they have in common, and the
//! tables for people.
//!
//! The documents are JSON. Keys keep their meaning from version to version; new ones may come. Bytes are whole numbers,
//! times have their unit in the key (`_s`, `_ms`), and what is not known is null. `docs/STATUS.md` lists them all. What
//! is read here may be of another version: what is missing takes its default.

use gkd_core::proto::SessionStats;
use gkd_core::proto::session::TunnelStats;
use gkd_core::{SessionHandle, Usage};
use serde::{Deserialize, Serialize};

use super::{Amount, Speed};

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SessionStatus {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// How long ago it began.
    pub age_s: u64,
    /// The other end takes no new connections.
    pub draining: bool,
    /// Its tunnels; at a client also those that are to be up and are not.
    pub tunnels: Vec<TunnelStatus>,
    /// Connections that are not forgotten.
    pub connections: u64,
    /// Payload bytes sent, each once.
    pub sent: u64,
    /// Payload bytes received, each once.
    pub received: u64,
    /// Bytes accepted from programs and not sent yet.
    pub queued: u64,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// What was received and not read, with 128 bytes for each packet.
    pub unread: u64,
    /// Packets that wait behind a missing one now.
    pub held_out_of_order: u64,
    /// The most packets that one connection held at a time.
    pub reorder_depth: u64,
    /// Data packets received, each once.
    pub packets_received: u64,
    /// Those of them that came behind a missing one.
    pub packets_out_of_order: u64,
    /// Data packets that came again.
    pub packets_duplicate: u64,
    /// Data packets sent again.
    pub packets_resent: u64,
    /// Bytes of packets that were given to an idle tunnel as well.
    pub repeated: u64,
    /// How often a tunnel became suspect.
    pub suspicions: u64,
    /// Tunnels that died.
    pub tunnels_lost: u64,
    /// Connections of the other end that were refused, being more than it may have.
    pub connections_refused: u64,
    /// Datagrams that were dropped because a queue was full.
    pub datagrams_dropped: u64,
    /// What is reserved of the process's memory.
    pub memory: u64,
}

/// One tunnel.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TunnelStatus {
    /// Which; none where it is not up.
    pub id: Option<u64>,
    /// How it is.
    pub state: TunnelState,
    /// At a client: the path that it runs over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The address that it comes from or leads to.
    pub remote: Option<String>,
    /// The larger of the kernel's round trip and the recent minimum of our own.
    pub round_trip_ms: Option<f64>,
    /// The largest rate of delivery of the last seconds, in bytes per second.
    pub rate_bytes_s: Option<u64>,
    /// Bytes that its socket has not sent.
    pub unsent: Option<u64>,
    /// Bytes that its socket sent and the first hop did not acknowledge.
    pub unacknowledged: Option<u64>,
    /// Bytes that the other end did not acknowledge.
    pub in_flight: u64,
    /// Bytes written in all.
    pub sent: u64,
    /// Bytes received in all.
    pub received: u64,
    /// Data packets that it carried again for another tunnel.
    pub packets_resent: u64,
}

/// How a tunnel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelState {
    /// It is dialled.
    Down,
    /// It carries packets.
    Up,
    /// It gets no packets, because it stopped acknowledging while others went on.
    Suspect,
    /// What another version calls otherwise.
    #[default]
    #[serde(other)]
    Unknown,
}

/// How much is used of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct UsageStatus {
    /// So much is.
    pub used: u64,
    /// So much may be.
    pub most: u64,
}

impl From<Usage> for UsageStatus {
    fn from(Usage { used, most }: Usage) -> Self {
        Self { used, most }
    }
}

impl SessionStatus {
    /// That of this session, with the tunnels that are up.
    pub fn of(session: &SessionHandle) -> Self {
        let stats = session.stats();
        let mut status = Self::of_stats(&stats);
        status.id = session.id().to_string();
        status.age_s = session.age().as_secs();
        status.draining = session.draining().is_some();
        status.held_out_of_order = session.held_out_of_order() as u64;
        let addresses: std::collections::HashMap<_, _> = session.tunnel_addrs().into_iter().collect();
        let tunnel = |stats: &TunnelStats| TunnelStatus {
            remote: addresses.get(&stats.tunnel).map(ToString::to_string),
            ..TunnelStatus::of_stats(stats)
        };
        status.tunnels = stats.tunnels.iter().map(tunnel).collect();
        status
    }

    fn of_stats(stats: &SessionStats) -> Self {
        Self {
            connections: stats.connections as u64,
            sent: stats.payload_sent,
            received: stats.payload_received,
            queued: stats.queued,
            in_flight: stats.in_flight,
            unread: stats.unread,
            reorder_depth: stats.reorder_depth,
            packets_received: stats.data_received,
            packets_out_of_order: stats.out_of_order,
            packets_duplicate: stats.duplicates,
            packets_resent: stats.resent,
            repeated: stats.repeated,
            suspicions: stats.suspicions,
            tunnels_lost: stats.tunnels_lost,
            connections_refused: stats.refused,
            datagrams_dropped: stats.datagrams_dropped,
            memory: stats.memory,
            ..Self::default()
        }
    }

    /// How many of its tunnels are up.
    pub fn tunnels_up(&self) -> usize {
        self.tunnels.iter().filter(|tunnel| tunnel.id.is_some()).count()
    }

    /// Two lines for people, and a table of the tunnels.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "  {}, {} sent, {} received, {} queued, {} in flight, {} unread",
                super::count(usize::try_from(self.connections).unwrap_or(usize::MAX), "connection"),
                Amount(self.sent),
                Amount(self.received),
                Amount(self.queued),
                Amount(self.in_flight),
                Amount(self.unread),
            ),
            format!(
                "  {} packets held out of order, {} at the most in one connection, {} resent, {} duplicates",
                self.held_out_of_order, self.reorder_depth, self.packets_resent, self.packets_duplicate
            ),
        ];
        if !self.tunnels.is_empty() {
            let head = [
                "tunnel",
                "state",
                "round trip",
                "rate",
                "in flight",
                "unsent",
                "sent",
                "received",
                "resent",
                "path",
            ];
            let rows = self.tunnels.iter().map(TunnelStatus::cells);
            lines.extend(table(std::iter::once(head.map(str::to_owned)).chain(rows)));
        }
        lines
    }
}

impl TunnelStatus {
    /// One that is up.
    pub fn of_stats(stats: &TunnelStats) -> Self {
        Self {
            id: Some(stats.tunnel.0),
            state: if stats.suspect { TunnelState::Suspect } else { TunnelState::Up },
            path: None,
            remote: None,
            // As whole microseconds: more digits would promise more than there is.
            round_trip_ms: stats.round_trip.map(|time| time.as_micros() as f64 / 1000.0),
            rate_bytes_s: stats.rate,
            unsent: stats.unsent,
            unacknowledged: stats.unacknowledged,
            in_flight: stats.in_flight,
            sent: stats.sent,
            received: stats.received,
            packets_resent: stats.resent,
        }
    }

    /// One that is to be up over this path, and is not.
    pub fn down(path: String) -> Self {
        Self { state: TunnelState::Down, path: Some(path), ..Self::default() }
    }

    fn cells(&self) -> [String; 10] {
        let remote = self.remote.as_ref().filter(|remote| self.path.as_ref() != Some(*remote));
        let place = match (&self.path, remote) {
            (Some(path), Some(remote)) => format!("{path} ({remote})"),
            (Some(place), None) | (None, Some(place)) => place.clone(),
            (None, None) => "?".to_owned(),
        };
        let state = match self.state {
            TunnelState::Down => "down",
            TunnelState::Up => "up",
            TunnelState::Suspect => "suspect",
            TunnelState::Unknown => "?",
        };
        let amount = |bytes| Amount(bytes).to_string();
        [
            or_unknown(self.id),
            state.to_owned(),
            or_unknown(self.round_trip_ms.map(|time| format!("{time:.1} ms"))),
            or_unknown(self.rate_bytes_s.map(|rate| Speed(rate as f64))),
            amount(self.in_flight),
            or_unknown(self.unsent.map(Amount)),
            amount(self.sent),
            amount(self.received),
            self.packets_resent.to_string(),
            place,
        ]
    }
}

/// Rows with their columns below each other, indented; the last column as long as it is.
pub fn table<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let rows: Vec<_> = rows.collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("  {cell:width$}"));
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A span of time in its two largest units.
pub fn for_so_long(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_columns_below_each_other() {
        let rows = [["a", "long one", "x"], ["longer", "ü", "y z"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(rows.into_iter()), ["  a       long one  x", "  longer  ü         y z"]);
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (180_000, "2 d 2 h")]
        {
            assert_eq!(for_so_long(seconds), words);
        }
    }

    #[test]
    fn a_tunnel_is_told_with_what_is_known_of_it() {
        let up = TunnelStatus {
            id: Some(3),
            state: TunnelState::Suspect,
            path: Some("a:1".to_owned()),
            remote: Some("127.0.0.1:1".to_owned()),
            round_trip_ms: Some(12.34),
            rate_bytes_s: Some(1_000_000),
            sent: 20_000,
            ..TunnelStatus::default()
        };
        let session = SessionStatus {
            tunnels: vec![up.clone(), TunnelStatus::down("b:2 from eth0".to_owned())],
            connections: 1,
            ..SessionStatus::default()
        };
        assert_eq!(session.tunnels_up(), 1);
        let lines = session.lines();
        assert!(lines[0].starts_with("  1 connection, 0 bytes sent"), "{lines:#?}");
        for part in ["3       suspect  12.3 ms     8.0 Mbit/s", "20.0 kB", "a:1 (127.0.0.1:1)"] {
            assert!(lines[3].contains(part), "{part}: {lines:#?}");
        }
        assert!(lines[4].contains("down") && lines[4].ends_with("b:2 from eth0"), "{lines:#?}");
        // The document is what is read again.
        let text = serde_json::to_string(&session).unwrap();
        assert!(text.contains("\"state\":\"suspect\"") && text.contains("\"state\":\"down\""), "{text}");
        assert_eq!(serde_json::from_str::<SessionStatus>(&text).unwrap(), session);
    }

    #[test]
    fn a_document_of_another_version_is_read_as_far_as_it_goes() {
        let text = r#"{"id":"ab","tunnels":[{"id":1,"state":"asleep","colour":"red"}],"new":[1]}"#;
        let session: SessionStatus = serde_json::from_str(text).unwrap();
        assert_eq!((session.id.as_str(), session.connections), ("ab", 0));
        assert_eq!(session.tunnels[0].state, TunnelState::Unknown);
    }
}
