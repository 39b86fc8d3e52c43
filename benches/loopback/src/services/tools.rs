//! The load: wrk, h2load and curl, and what they print, which is read strictly. An answer that is none of 200 to 299 is an
//! error, and so is a body that is wrong.

use std::io::Read;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

/// Answers of a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Requests {
    pub(super) count: u64,
    pub(super) per_second: f64,
    /// How late half of them were at the most, and 99 of a hundred.
    pub(super) half: Duration,
    pub(super) most: Duration,
}

/// Over so many connections of HTTP/1.1, each of which asks when it has its answer.
pub(super) fn wrk(url: &str, connections: usize, seconds: u32) -> Result<Requests> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "--threads", &connections.min(2).to_string()]);
    command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s"), url]);
    let said = run(command)?;
    read_wrk(&said).with_context(|| format!("wrk says:\n{said}"))
}

/// Over so many connections of HTTP/2 with so many streams each.
pub(super) fn h2load(url: &str, connections: usize, streams: usize, seconds: u32) -> Result<Requests> {
    let log = NamedTempFile::new()?;
    let mut command = Command::new("h2load");
    command.args(["--threads", &connections.min(2).to_string(), "--clients", &connections.to_string()]);
    command.args(["--max-concurrent-streams", &streams.to_string(), "--duration", &seconds.to_string()]);
    command.arg("--log-file").arg(log.path()).arg(url);
    let said = run(command)?;
    // It tells no percentiles by itself.
    let log = std::fs::read_to_string(log.path())?;
    read_h2load(&said, &log).with_context(|| format!("h2load says:\n{said}"))
}

/// Downloads so many bytes over one connection; how long it took, from the opening of the connection.
pub(super) fn download(url: &str, http2: bool, bytes: u64) -> Result<Duration> {
    let mut command = curl(url, http2);
    command.args(["--output", "/dev/null", "--write-out", "%{http_code} %{size_download} %{time_total}"]);
    let said = run(command)?;
    read_curl(&said, bytes).with_context(|| format!("curl says {said:?}"))
}

/// Downloads a body and compares it.
pub(super) fn compare(url: &str, http2: bool, body: &[u8]) -> Result<()> {
    let mut child =
        curl(url, http2).arg("--fail").stdout(Stdio::piped()).spawn().context("cannot start curl")?;
    let mut got = Vec::with_capacity(body.len());
    child.stdout.take().context("curl has no output")?.read_to_end(&mut got)?;
    let status = child.wait()?;
    ensure!(status.success(), "curl {url}: {status}");
    ensure!(got == body, "{url}: another body came, of {} bytes instead of {}", got.len(), body.len());
    Ok(())
}

fn curl(url: &str, http2: bool) -> Command {
    let mut command = Command::new("curl");
    // Nobody vouches for the certificate, and nothing here is of anybody's settings.
    command.args([
        "--disable",
        "--silent",
        "--show-error",
        "--insecure",
        "--noproxy",
        "*",
        "--max-time",
        "120",
    ]);
    command.args([if http2 { "--http2" } else { "--http1.1" }, url]);
    command
}

/// What a command printed.
fn run(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let [said, complained] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    ensure!(output.status.success(), "{name} ended with {}:\n{said}{complained}", output.status);
    Ok(said)
}

fn read_wrk(said: &str) -> Result<Requests> {
    for line in said.lines().map(str::trim) {
        if line.starts_with("Non-2xx") || line.starts_with("Socket errors") {
            bail!("{line}");
        }
    }
    let percentile = |percent| {
        let text = words_behind(said, percent)?.next();
        span(text.with_context(|| format!("nothing behind {percent}"))?)
    };
    let count = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (count, _) = count.context("no number of requests")?;
    Ok(Requests {
        count: positive(count)?,
        per_second: number(words_behind(said, "Requests/sec:")?.next().unwrap_or_default())?,
        half: percentile("50%")?,
        most: percentile("99%")?,
    })
}

/// Its words, and its log: when a request began, the status, and the microseconds until the answer's end.
fn read_h2load(said: &str, log: &str) -> Result<Requests> {
    let requests: Vec<_> = words_behind(said, "requests:")?.collect();
    let of = |what: &str| {
        let at = requests.iter().position(|word| word.trim_end_matches(',') == what);
        let number =
            at.and_then(|at| requests.get(at.checked_sub(1)?)).with_context(|| format!("no {what}"))?;
        number.parse::<u64>().with_context(|| format!("{what}: {number:?}"))
    };
    let count = of("succeeded")?;
    ensure!(count > 0, "nothing succeeded");
    for what in ["failed", "errored", "timeout"] {
        ensure!(of(what)? == 0, "requests: {}", requests.join(" "));
    }
    let mut times = Vec::new();
    for line in log.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [_, status, took] = fields[..] else { bail!("a line of its log is {line:?}") };
        ensure!(number::<u16>(status)? / 100 == 2, "an answer is {status}");
        times.push(Duration::from_micros(number(took)?));
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().context("its log is empty");
    let finished = said.lines().find(|line| line.starts_with("finished in ")).context("it never finished")?;
    let per_second = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"));
    Ok(Requests {
        count,
        per_second: number(per_second.context("no requests a second")?)?,
        half: at(50)?,
        most: at(99)?,
    })
}

fn read_curl(said: &str, bytes: u64) -> Result<Duration> {
    let words: Vec<_> = said.split(' ').collect();
    let [status, got, took] = words[..] else { bail!("three numbers are missing") };
    ensure!(status == "200", "the answer is {status}");
    ensure!(number::<u64>(got)? == bytes, "{got} bytes came instead of {bytes}");
    Ok(Duration::try_from_secs_f64(number(took)?)?)
}

/// The words behind the first of the line that begins with it.
fn words_behind<'a>(said: &'a str, first: &str) -> Result<impl Iterator<Item = &'a str>> {
    let mut lines = said.lines().map(str::split_whitespace);
    lines
        .find_map(|mut words| (words.next()? == first).then_some(words))
        .with_context(|| format!("no line begins with {first:?}"))
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    text.trim().parse().ok().with_context(|| format!("{text:?} is no number"))
}

fn positive(text: &str) -> Result<u64> {
    let number = number(text)?;
    ensure!(number > 0, "there was no answer");
    Ok(number)
}

/// As wrk writes it: `85.00us`, `1.20ms`, `2.00s`, `1.00m`.
fn span(text: &str) -> Result<Duration> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (value, unit) = text.split_at(unit_at);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("{text:?} is no time"),
    };
    Ok(Duration::try_from_secs_f64(number::<f64>(value)? * unit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1:18080/\n  1 threads and 4 connections\n  Thread Stats   Avg      \
        Stdev     Max   +/- Stdev\n    Latency   598.01us    2.31ms  23.93ms   94.82%\n    Req/Sec    33.48k     5.99k   \
        44.02k    70.00%\n  Latency Distribution\n     50%   85.00us\n     75%   96.00us\n     90%  254.00us\n     99%   \
        13.12ms\n  33316 requests in 1.00s, 4.83MB read\nRequests/sec:  33183.50\nTransfer/sec:      4.81MB\n";

    const H2LOAD: &str = "starting benchmark...\n\nfinished in 1.00s, 20458.00 req/s, 6.01MB/s\nrequests: 20458 total, 20460 \
        started, 20458 done, 20458 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 20458 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn wrk_is_read() {
        let read = read_wrk(WRK).unwrap();
        let (half, most) = (Duration::from_micros(85), Duration::from_micros(13_120));
        assert_eq!(read, Requests { count: 33_316, per_second: 33_183.5, half, most });
        assert_eq!(span("1.50s").unwrap(), Duration::from_millis(1500));
        assert!(span("1.50").is_err());
    }

    #[test]
    fn what_wrk_complains_of_is_an_error() {
        for line in
            ["  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"]
        {
            let error = read_wrk(&format!("{WRK}{line}")).unwrap_err();
            assert_eq!(error.to_string(), line.trim());
        }
        assert!(read_wrk(&WRK.replace("99%", "98%")).is_err());
        assert!(read_wrk(&WRK.replace("33316", "0")).is_err());
    }

    #[test]
    fn h2load_is_read_with_its_log() {
        let log: String = (1..=100).rev().map(|took| format!("1795697435924292\t200\t{took}\n")).collect();
        let read = read_h2load(H2LOAD, &log).unwrap();
        let (half, most) = (Duration::from_micros(51), Duration::from_micros(100));
        assert_eq!(read, Requests { count: 20_458, per_second: 20_458.0, half, most });
        for (right, wrong) in
            [("0 failed", "1 failed"), ("0 timeout", "2 timeout"), ("0 errored", "many errored")]
        {
            assert!(read_h2load(&H2LOAD.replace(right, wrong), &log).is_err(), "{wrong}");
        }
        assert!(read_h2load(H2LOAD, "").is_err());
        assert!(read_h2load(H2LOAD, &log.replacen("\t200\t", "\t502\t", 1)).is_err());
    }

    #[test]
    fn a_download_is_whole() {
        assert_eq!(read_curl("200 1000 0.250000", 1000).unwrap(), Duration::from_millis(250));
        for wrong in ["200 999 0.25", "502 1000 0.25", "200 1000", "200 1000 -1", ""] {
            assert!(read_curl(wrong, 1000).is_err(), "{wrong}");
        }
    }
}
