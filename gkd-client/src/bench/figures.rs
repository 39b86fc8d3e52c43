//! What was found: [`Figures`], as a table for people and as JSON for programs. In JSON rates are bits per second and
//! times milliseconds; a key whose value is not known is null.

use std::time::Duration;

use gkd_core::TunnelPlace;
use gkd_core::proto::session::TunnelStats;
use gkd_proxy::program::count;
use serde::{Serialize, Serializer};

use super::load::{Load, Measured};
use crate::progress::{Size, Speed};

/// All figures of one run.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    server: String,
    seconds: u64,
    rounds: u32,
    one: Side,
    many: Side,
    /// N over 1: above 1 is better for rates, below 1 for round trips.
    ratio: Ratio,
}

/// What was found over one client.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    /// Per path.
    pub(super) tunnels: usize,
    #[serde(rename = "download_bit_s")]
    download: Rate,
    #[serde(rename = "upload_bit_s")]
    upload: Rate,
    idle: RoundTrips,
    downloading: RoundTrips,
    uploading: RoundTrips,
    /// Those that were up at the end.
    pub(super) paths: Vec<Tunnel>,
}

/// A tunnel that was up.
#[derive(Debug, Serialize)]
pub(super) struct Tunnel {
    tunnel: u64,
    path: String,
    remote: Option<String>,
    #[serde(serialize_with = "millis")]
    round_trip_ms: Option<Duration>,
    sent: u64,
    received: u64,
}

/// Bytes in a time.
#[derive(Debug, Default)]
struct Rate {
    bytes: u64,
    time: Duration,
}

/// Round trips of messages.
#[derive(Debug, Default)]
struct RoundTrips(Vec<Duration>);

#[derive(Debug, Serialize)]
struct Ratio {
    download: Option<f64>,
    upload: Option<f64>,
    idle_p50: Option<f64>,
    idle_p99: Option<f64>,
    downloading_p50: Option<f64>,
    downloading_p99: Option<f64>,
    uploading_p50: Option<f64>,
    uploading_p99: Option<f64>,
}

/// Percentiles that are told.
const HALF: usize = 50;
const ALMOST_ALL: usize = 99;

/// Columns of the table, in characters.
const NAME: usize = 30;
const VALUE: usize = 16;

impl Figures {
    pub(super) fn new(server: String, time: Duration, rounds: u32, [one, many]: [Side; 2]) -> Self {
        let rate = |of: fn(&Side) -> &Rate| over(of(&many).per_second(), of(&one).per_second());
        let trips = |of: fn(&Side) -> &RoundTrips, percent| {
            let seconds = |side| of(side).percentile(percent).map(|time| time.as_secs_f64());
            over(seconds(&many), seconds(&one))
        };
        let ratio = Ratio {
            download: rate(|side| &side.download),
            upload: rate(|side| &side.upload),
            idle_p50: trips(|side| &side.idle, HALF),
            idle_p99: trips(|side| &side.idle, ALMOST_ALL),
            downloading_p50: trips(|side| &side.downloading, HALF),
            downloading_p99: trips(|side| &side.downloading, ALMOST_ALL),
            uploading_p50: trips(|side| &side.uploading, HALF),
            uploading_p99: trips(|side| &side.uploading, ALMOST_ALL),
        };
        Self { server, seconds: time.as_secs(), rounds, one, many, ratio }
    }

    /// The table, and the tunnels below it.
    pub(super) fn lines(&self) -> Vec<String> {
        let (one, many, ratio) = (&self.one, &self.many, &self.ratio);
        let (head, heads) =
            (format!("to {}", self.server), [one, many].map(|side| count(side.tunnels, "tunnel")));
        let mut lines = vec![row(&head, heads, &format!("{} over {}", many.tunnels, one.tunnels))];
        let mut rate = |name: &str, rates: [&Rate; 2], ratio: Option<f64>| {
            let shown = rates.map(|rate| or_unknown(rate.per_second().map(Speed)));
            lines.push(row(name, shown, &in_digits(ratio)));
        };
        rate("download", [&one.download, &many.download], ratio.download);
        rate("upload", [&one.upload, &many.upload], ratio.upload);
        let mut trips = |name: &str, trips: [&RoundTrips; 2], percent, ratio| {
            let shown = trips.map(|trips| trips.percentile(percent).map(|time| format!("{time:.1?}")));
            lines.push(row(&format!("{name}, p{percent}"), shown.map(or_unknown), &in_digits(ratio)));
        };
        let idle = [&one.idle, &many.idle];
        trips("round trip", idle, HALF, ratio.idle_p50);
        trips("round trip", idle, ALMOST_ALL, ratio.idle_p99);
        let downloading = [&one.downloading, &many.downloading];
        trips("… under download", downloading, HALF, ratio.downloading_p50);
        trips("… under download", downloading, ALMOST_ALL, ratio.downloading_p99);
        let uploading = [&one.uploading, &many.uploading];
        trips("… under upload", uploading, HALF, ratio.uploading_p50);
        trips("… under upload", uploading, ALMOST_ALL, ratio.uploading_p99);
        for side in [one, many] {
            lines.push(String::new());
            lines.push(format!("{} per path:", count(side.tunnels, "tunnel")));
            lines.extend(side.paths.iter().map(Tunnel::line));
        }
        lines
    }
}

impl Side {
    /// With so many tunnels per path.
    pub(super) fn new(tunnels: usize) -> Self {
        Self {
            tunnels,
            download: Rate::default(),
            upload: Rate::default(),
            idle: RoundTrips::default(),
            downloading: RoundTrips::default(),
            uploading: RoundTrips::default(),
            paths: Vec::new(),
        }
    }

    /// Adds what was measured beside this load.
    pub(super) fn add(&mut self, load: Load, measured: Measured) {
        let (rate, trips) = match load {
            Load::None => (None, &mut self.idle),
            Load::Download => (Some(&mut self.download), &mut self.downloading),
            Load::Upload => (Some(&mut self.upload), &mut self.uploading),
        };
        trips.0.extend(measured.round_trips);
        if let Some(rate) = rate {
            rate.bytes += measured.bytes;
            rate.time += measured.time;
        }
    }
}

impl Tunnel {
    pub(super) fn new(place: &TunnelPlace, stats: &TunnelStats) -> Self {
        Self {
            tunnel: stats.tunnel.0,
            path: place.path.to_string(),
            remote: place.remote.map(|remote| remote.to_string()),
            round_trip_ms: stats.round_trip,
            sent: stats.sent,
            received: stats.received,
        }
    }

    fn line(&self) -> String {
        let remote = self.remote.iter().filter(|remote| **remote != self.path);
        let remote: String = remote.map(|remote| format!(" ({remote})")).collect();
        format!(
            "  tunnel {} to {}{remote}: round trip {}, {} sent, {} received",
            self.tunnel,
            self.path,
            or_unknown(self.round_trip_ms.map(|time| format!("{time:.1?}"))),
            Size(self.sent),
            Size(self.received)
        )
    }
}

impl Rate {
    /// Bytes per second, where anything was moved.
    fn per_second(&self) -> Option<f64> {
        let seconds = self.time.as_secs_f64();
        (self.bytes > 0 && seconds > 0.0).then(|| self.bytes as f64 / seconds)
    }
}

impl RoundTrips {
    /// The least of them that so many in a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.per_second().map(|bytes| (bytes * 8.0).round()).serialize(to)
    }
}

impl Serialize for RoundTrips {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            messages: usize,
            #[serde(serialize_with = "millis")]
            p50_ms: Option<Duration>,
            #[serde(serialize_with = "millis")]
            p99_ms: Option<Duration>,
        }
        let (p50_ms, p99_ms) = (self.percentile(HALF), self.percentile(ALMOST_ALL));
        Shown { messages: self.0.len(), p50_ms, p99_ms }.serialize(to)
    }
}

fn millis<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    // As whole microseconds: more digits would promise more than there is.
    time.map(|time| time.as_micros() as f64 / 1000.0).serialize(to)
}

fn over(many: Option<f64>, one: Option<f64>) -> Option<f64> {
    let (many, one) = (many?, one?);
    (one > 0.0).then(|| many / one)
}

fn row(name: &str, [one, many]: [String; 2], ratio: &str) -> String {
    format!("{name:NAME$} {one:>VALUE$} {many:>VALUE$} {ratio:>VALUE$}")
}

fn in_digits(ratio: Option<f64>) -> String {
    or_unknown(ratio.map(|ratio| format!("{ratio:.2}")))
}

fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(tunnels: usize, factor: u64) -> Side {
        let mut side = Side::new(tunnels);
        for (load, bytes) in [(Load::None, 0), (Load::Download, 1_000_000), (Load::Upload, 500_000)] {
            for _ in 0..2 {
                let round_trips = (1..=50).map(Duration::from_millis).collect();
                side.add(load, Measured { bytes: bytes * factor, time: Duration::from_secs(1), round_trips });
            }
        }
        side
    }

    #[test]
    fn rounds_are_taken_together_and_sides_compared() {
        let figures = Figures::new("a:1".to_owned(), Duration::from_secs(3), 2, [side(1, 1), side(4, 3)]);
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["one"]["download_bit_s"], 8_000_000.0);
        assert_eq!(json["many"]["upload_bit_s"], 12_000_000.0);
        assert_eq!(json["ratio"]["download"], 3.0);
        assert_eq!(json["ratio"]["idle_p50"], 1.0);
        assert_eq!(json["one"]["idle"]["messages"], 100);
        assert_eq!(
            (&json["one"]["idle"]["p50_ms"], &json["one"]["idle"]["p99_ms"]),
            (&25.0.into(), &50.0.into())
        );
        let lines = figures.lines();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
            "to a:1 1 tunnel 4 tunnels 4 over 1"
        );
        assert!(
            lines[1].contains("8.0 Mbit/s") && lines[1].contains("24.0 Mbit/s") && lines[1].ends_with("3.00")
        );
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let figures = Figures::new("a:1".to_owned(), Duration::from_secs(3), 2, [Side::new(1), Side::new(4)]);
        let json = serde_json::to_value(&figures).unwrap();
        assert!(json["one"]["download_bit_s"].is_null() && json["ratio"]["upload"].is_null());
        assert!(json["many"]["idle"]["p99_ms"].is_null());
        assert!(figures.lines()[1].ends_with('?'));
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |count: u64| RoundTrips((1..=count).rev().map(Duration::from_millis).collect());
        for (count, half, almost) in [(1, 1, 1), (2, 1, 2), (100, 50, 99), (101, 51, 100)] {
            let of = of(count);
            assert_eq!(of.percentile(HALF), Some(Duration::from_millis(half)), "{count}");
            assert_eq!(of.percentile(ALMOST_ALL), Some(Duration::from_millis(almost)), "{count}");
        }
        assert_eq!(of(0).percentile(HALF), None);
    }
}
