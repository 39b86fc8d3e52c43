//! HTTP services beside nginx as a reverse proxy to the same three targets: requests a second, how late answers are, the
//! CPU time of the proxy for each, and one large download. gkd-server has the targets itself, or a client announces them.
//!
//! Load, targets and proxy share the processors of the machine, so the CPU time says more than the requests a second do.
//! The load is wrk's, h2load's and curl's, and nginx serves the targets: without one of them its part is passed over.

mod proxy;
mod targets;
mod tools;

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::Bench;
use crate::figures::{Report, Samples};
use crate::rival::is_on_path;
use proxy::{Certificate, Kind, Proxy};
use targets::Targets;
use tools::Requests;

/// What people speak with a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    Http2,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Http2];

    /// What makes requests of it.
    fn tool(self) -> &'static str {
        match self {
            Self::Http | Self::Https => "wrk",
            Self::Http2 => "h2load",
        }
    }

    fn url(self, proxy: &Proxy, path: &str) -> String {
        let (scheme, at): (_, SocketAddr) = match self {
            Self::Http => ("http", proxy.http),
            Self::Https | Self::Http2 => ("https", proxy.https),
        };
        format!("{scheme}://{at}{path}")
    }

    fn measure(self, what: &str) -> String {
        format!("{self}: {what}")
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP/1.1",
            Self::Https => "HTTP/1.1 over TLS",
            Self::Http2 => "HTTP/2 over TLS",
        })
    }
}

/// How many requests are made at a time, and for how long.
struct Manner {
    name: &'static str,
    /// Requests at a time; over HTTP/2 they share connections.
    at_a_time: usize,
    seconds: u32,
}

/// Streams of a connection of HTTP/2.
const STREAMS: usize = 8;

const MANNERS: [Manner; 2] = [
    Manner { name: "64 at a time", at_a_time: 64, seconds: 2 },
    Manner { name: "one at a time", at_a_time: 1, seconds: 1 },
];

/// What is measured of each manner, with its unit.
const RATE: (&str, &str) = ("requests", "/s");
const CPU: (&str, &str) = ("CPU of the proxy for a request", "µs");
const HALF: (&str, &str) = ("latency, p50", "ms");
const MOST: (&str, &str) = ("latency, p99", "ms");

/// Of the download.
const SPEED: (&str, &str) = ("one download", "MB/s");
const CPU_OF_BYTES: (&str, &str) = ("CPU of the proxy for one download", "s/GB");

/// Bytes of it.
const LARGE: u64 = 256 * 1024 * 1024;
const QUICK: u64 = 16 * 1024 * 1024;

/// Tunnels of the client that announces the targets.
const TUNNELS: usize = 4;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut protocols = Protocol::ALL.to_vec();
    for tool in ["nginx", "curl", "wrk", "h2load"].into_iter().filter(|tool| !is_on_path(tool)) {
        report.notes.push(format!("services: {tool} is not on the PATH, so what takes it was not measured"));
        if matches!(tool, "nginx" | "curl") {
            return Ok(());
        }
        protocols.retain(|protocol| protocol.tool() != tool);
    }
    let large = if bench.quick { QUICK } else { LARGE };
    let targets = Targets::start(large)?;
    let certificate = Certificate::make()?;
    let mut proxies = Vec::new();
    for kind in kinds(bench) {
        proxies.push(Proxy::start(&kind, &targets, &certificate, &bench.programs)?);
    }
    for proxy in &proxies {
        for protocol in Protocol::ALL {
            check(proxy, protocol, &targets).with_context(|| format!("{}, {protocol}", proxy.kind))?;
        }
    }
    let manners = if bench.quick { &MANNERS[..1] } else { &MANNERS };
    let mut samples = Samples::default();
    for round in 1..=bench.rounds {
        bench.say(format_args!("services: round {round} of {}", bench.rounds));
        for protocol in &protocols {
            for manner in manners {
                for proxy in &proxies {
                    requests(proxy, *protocol, manner, bench.quick, &mut samples)
                        .with_context(|| format!("{}, {protocol}, {}", proxy.kind, manner.name))?;
                }
            }
        }
        for protocol in Protocol::ALL {
            for proxy in &proxies {
                download(proxy, protocol, large, &mut samples)
                    .with_context(|| format!("{}, {protocol}, a download", proxy.kind))?;
            }
        }
    }
    tell(&proxies, &protocols, manners, &samples, report);
    Ok(())
}

/// The proxies that are compared: nginx always, for everything is told over it.
fn kinds(bench: &Bench) -> Vec<Kind> {
    let mut kinds = vec![Kind::Nginx];
    for beside in [false, true].into_iter().filter(|beside| !beside || bench.programs.beside.is_some()) {
        for tunnels in [None, Some(TUNNELS)] {
            kinds.push(Kind::Gkd { tunnels, beside });
        }
    }
    kinds.retain(|kind| *kind == Kind::Nginx || bench.wants(kind));
    kinds
}

/// What both bodies come as, whole, before anything is measured; this warms the proxy too.
fn check(proxy: &Proxy, protocol: Protocol, targets: &Targets) -> Result<()> {
    let http2 = protocol == Protocol::Http2;
    for (path, body) in [(targets::SMALL, &targets.small), (targets::LARGE, &targets.large)] {
        tools::compare(&protocol.url(proxy, path), http2, body)?;
    }
    Ok(())
}

fn requests(
    proxy: &Proxy,
    protocol: Protocol,
    manner: &Manner,
    quick: bool,
    samples: &mut Samples,
) -> Result<()> {
    let url = protocol.url(proxy, targets::SMALL);
    let seconds = if quick { 1 } else { manner.seconds };
    let cpu = proxy.cpu()?;
    let Requests { count, per_second, half, most } = match protocol {
        Protocol::Http | Protocol::Https => tools::wrk(&url, manner.at_a_time, seconds)?,
        Protocol::Http2 => {
            let streams = STREAMS.min(manner.at_a_time);
            tools::h2load(&url, manner.at_a_time / streams, streams, seconds)?
        }
    };
    let cpu = proxy.cpu()? - cpu;
    for ((what, _), sample) in [
        (RATE, per_second),
        (CPU, cpu.as_secs_f64() * 1e6 / count as f64),
        (HALF, half.as_secs_f64() * 1e3),
        (MOST, most.as_secs_f64() * 1e3),
    ] {
        samples.add(&of_manner(protocol, what, manner), &proxy.kind, sample);
    }
    Ok(())
}

fn of_manner(protocol: Protocol, what: &str, manner: &Manner) -> String {
    protocol.measure(&format!("{what}, {}", manner.name))
}

fn download(proxy: &Proxy, protocol: Protocol, bytes: u64, samples: &mut Samples) -> Result<()> {
    let cpu = proxy.cpu()?;
    let took = tools::download(&protocol.url(proxy, targets::LARGE), protocol == Protocol::Http2, bytes)?;
    let cpu = proxy.cpu()? - cpu;
    samples.add(&protocol.measure(SPEED.0), &proxy.kind, bytes as f64 / 1e6 / took.as_secs_f64());
    samples.add(&protocol.measure(CPU_OF_BYTES.0), &proxy.kind, cpu.as_secs_f64() * 1e9 / bytes as f64);
    Ok(())
}

fn tell(
    proxies: &[Proxy],
    protocols: &[Protocol],
    manners: &[Manner],
    samples: &Samples,
    report: &mut Report,
) {
    let mut measures = Vec::new();
    for protocol in protocols {
        for manner in manners {
            measures.extend(
                [RATE, CPU, HALF, MOST].map(|(what, unit)| (of_manner(*protocol, what, manner), unit)),
            );
        }
    }
    for protocol in Protocol::ALL {
        measures.extend([SPEED, CPU_OF_BYTES].map(|(what, unit)| (protocol.measure(what), unit)));
    }
    let nginx = Kind::Nginx.to_string();
    for (measure, unit) in &measures {
        for Proxy { kind, .. } in proxies {
            let over = Some(nginx.as_str()).filter(|_| *kind != Kind::Nginx);
            report.rows.push(samples.row((measure, unit), kind, over, None));
        }
    }
    for (measure, unit) in &measures {
        for Proxy { kind, .. } in proxies {
            if let Kind::Gkd { tunnels, beside: true } = kind {
                let own = Kind::Gkd { tunnels: *tunnels, beside: false };
                report.rows.push(samples.row((measure, unit), own, Some(&kind.to_string()), None));
            }
        }
    }
}
