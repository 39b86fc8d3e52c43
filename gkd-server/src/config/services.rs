//! What `server.toml` says of HTTP services ([`Http`]): `[http]`, the front, and each `[[service]]`.
//!
//! Here each setting is judged by itself; what goes together with what is judged in `together`. Files are looked for only
//! by [`Http::check`].

mod target;
mod together;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use gkd_proxy::program::{self, Failure, Size, Span};
use gkd_proxy::rules::parse_range;
use gkd_proxy::service::config::{
    AccessLog, CertificateFiles, FrontLimits, FrontListen, HealthCheck, HostError, HostPattern, HttpConfig,
    MAX_WEIGHT, NamePattern, ServiceConfig, TargetConfig, TargetForm, WordsError, host_name,
    parse_health_path, parse_name, parse_path,
};
use serde::Deserialize;
use toml::Spanned;

use super::users::{User, WrittenUser};
use super::{Judge, Problem, Problems, printable};
use crate::listen::ListenAddress;
use target::WrittenTarget;
use together::Together;

/// The most places that a front listens at.
const MAX_LISTEN: usize = 64;

/// The most certificates of a front.
const MAX_CERTIFICATES: usize = 1024;

/// The most ranges that are trusted.
const MAX_TRUSTED: usize = 1000;

/// The most services.
const MAX_SERVICES: usize = 1024;

/// The most hosts, and paths, of a service. Each host has each of the paths.
const MAX_HOSTS: usize = 64;
const MAX_PATHS: usize = 64;

/// The most targets that the file gives a service.
const MAX_TARGETS: usize = 256;

/// The most users that share a service.
const MAX_USERS: usize = 256;

/// The longest domain: a service's name and a dot stand in front of it.
const MAX_DOMAIN: usize = 189;

/// Bounds of a request's head: the least is what the library that reads it takes.
const LEAST_HEAD: Size = Size::from_kib(8);
const MOST_HEAD: Size = Size::from_mib(1);

/// Bounds of a body, where one is set.
const LEAST_BODY: Size = Size::from_kib(1);
const MOST_BODY: Size = Size::from_mib(1 << 20);

/// Connections of visitors.
const CONNECTIONS: RangeInclusive<usize> = 1..=1 << 18;

/// Requests a second of one address.
const REQUESTS: RangeInclusive<usize> = 1..=1_000_000;

/// How long may be waited, for the next step and for the next request.
const LEAST_WAIT: Span = Span::from_secs(1);
const MOST_WAIT: Span = Span::from_secs(24 * 3600);

/// From one health check to the next, and for its answer.
const INTERVAL: (Span, Span) = (Span::from_millis(100), Span::from_secs(3600));
const ANSWER: (Span, Span) = (Span::from_millis(10), Span::from_secs(60));

/// Health checks in a row that change the mind.
const IN_A_ROW: RangeInclusive<usize> = 1..=100;

/// The front and its services, and where the file names what is outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) config: HttpConfig,
    /// In their order in `config`.
    certificates: Vec<CertificatePlace>,
    folders: Vec<(TargetForm, Place)>,
}

/// Line and column.
type Place = (usize, usize);

/// Where the file names a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificatePlace {
    files: CertificateFiles,
    certificate: Place,
    key: Place,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenHttp {
    listen: Vec<Spanned<String>>,
    certificates: Vec<Spanned<WrittenCertificate>>,
    trusted: Vec<Spanned<String>>,
    proxy_header: Option<Spanned<bool>>,
    access_log: Option<Spanned<String>>,
    domain: Option<Spanned<String>>,
    max_head: Option<Spanned<String>>,
    max_body: Option<Spanned<String>>,
    connections: Option<Spanned<i64>>,
    connections_per_address: Option<Spanned<i64>>,
    requests_per_second: Option<Spanned<i64>>,
    timeouts: WrittenTimeouts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCertificate {
    certificate: Spanned<String>,
    key: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenTimeouts {
    head: Option<Spanned<String>>,
    silence: Option<Spanned<String>>,
    keep_alive: Option<Spanned<String>>,
    connect: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenService {
    name: Spanned<String>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    paths: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    targets: Vec<Spanned<WrittenTarget>>,
    #[serde(default)]
    users: Vec<Spanned<String>>,
    balance: Option<Spanned<String>>,
    host: Option<Spanned<String>>,
    https: Option<Spanned<String>>,
    #[serde(default)]
    send_proxy: bool,
    health: Option<WrittenHealth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHealth {
    path: Spanned<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    rise: Option<Spanned<i64>>,
    fall: Option<Spanned<i64>>,
}

impl Http {
    /// Has those who share a service be granted it by name.
    pub(super) fn grant(&self, users: &mut [User]) {
        for service in &self.config.services {
            // A name that is none was complained about.
            let Ok(name) = service.name.parse::<NamePattern>() else { continue };
            for user in users.iter_mut() {
                let shares = service.users.iter().any(|one| one == user.name.as_str());
                if shares && !user.services.names(&service.name) {
                    user.services = user.services.with(name.clone()).into();
                }
            }
        }
    }

    /// Looks whether certificates, keys and folders are there and are what they should be; the file is at this path.
    ///
    /// # Errors
    /// One is not: a line for each.
    pub(crate) fn check(&self, path: &std::path::Path) -> Result<(), Failure> {
        let mut problems = Vec::new();
        let mut complain = |(line, column): Place, error: &dyn std::fmt::Display| {
            problems.push(Problem { line, column, words: printable(&error.to_string()) });
        };
        for CertificatePlace { files, certificate, key } in &self.certificates {
            if let Err(error) = files.check() {
                complain(if error.is_of_key() { *key } else { *certificate }, &error);
            }
        }
        for (folder, place) in &self.folders {
            if let Err(error) = folder.check() {
                complain(*place, &error);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems).of(path)) }
    }
}

impl Judge<'_> {
    /// The front and its services; none where the file has neither. `own` is where the server itself listens.
    pub(super) fn http(
        &mut self,
        written: Option<&Spanned<WrittenHttp>>,
        services: &[WrittenService],
        users: &[WrittenUser],
        own: &[ListenAddress],
    ) -> Option<Http> {
        let nothing = WrittenHttp::default();
        let front = written.map_or(&nothing, Spanned::get_ref);
        let (files, certificates) = self.certificates(&front.certificates);
        let mut config = HttpConfig::default();
        config.listen = self.front_listen(&front.listen, own);
        config.certificates = files;
        config.trusted = self.trusted(front);
        config.proxy_header = front.proxy_header.as_ref().is_some_and(|written| *written.get_ref());
        config.access_log = front
            .access_log
            .as_ref()
            .and_then(|written| self.value::<AccessLog>(written))
            .unwrap_or_default();
        config.domain = front.domain.as_ref().and_then(|written| self.judged(written, parse_domain));
        config.limits = self.front_limits(front);
        let mut folders = Vec::new();
        if let Some(one) = services.get(MAX_SERVICES) {
            let words =
                format!("{} services are more than the {MAX_SERVICES} that a server takes", services.len());
            self.complain(one.name.span(), words);
        }
        let mut judged = Vec::new();
        for one in services.iter().take(MAX_SERVICES) {
            let (service, places) = self.service(one);
            folders.extend(places);
            judged.push((one, service));
        }
        Together::new(self, &config, written, users).judge(&judged);
        config.services = judged.into_iter().map(|(_, service)| service).collect();
        let is_there = written.is_some() || !services.is_empty();
        is_there.then_some(Http { config, certificates, folders })
    }

    fn place(&self, written: &Spanned<String>) -> Place {
        program::place(self.text, written.span().start)
    }

    /// As many as there may be; the first beyond is complained about.
    fn few<'a, T>(&mut self, all: &'a [Spanned<T>], most: usize, what: &str) -> &'a [Spanned<T>] {
        if let Some(one) = all.get(most) {
            self.complain(one.span(), format!("{} {what} are more than the {most} that may be", all.len()));
        }
        &all[..all.len().min(most)]
    }

    fn front_listen(&mut self, written: &[Spanned<String>], own: &[ListenAddress]) -> Vec<FrontListen> {
        let mut listen: Vec<(FrontListen, usize)> = Vec::new();
        for one in self.few(written, MAX_LISTEN, "places to listen at") {
            let Some(place) = self.value::<FrontListen>(one) else { continue };
            let (ip, port) = (place.address.ip(), place.address.port());
            let taken = listen.iter().find(|(before, _)| before.clashes_with(ip, port));
            if let Some((before, line)) = taken {
                let words = format!(
                    "{place} is taken by {before} in line {line}: listen at another port, or remove one"
                );
                self.complain(one.span(), words);
            } else if let Some(tunnels) = own.iter().find(|tunnels| tunnels.clashes_with(&place)) {
                let words = format!(
                    "{place} is where tunnels come in, by listen ({tunnels}): use another port for one of them"
                );
                self.complain(one.span(), words);
            }
            listen.push((place, self.place(one).0));
        }
        listen.into_iter().map(|(place, _)| place).collect()
    }

    fn certificates(
        &mut self,
        written: &[Spanned<WrittenCertificate>],
    ) -> (Vec<CertificateFiles>, Vec<CertificatePlace>) {
        let mut places = Vec::new();
        for one in self.few(written, MAX_CERTIFICATES, "certificates") {
            let WrittenCertificate { certificate, key } = one.get_ref();
            let paths = (self.judged(certificate, parse_whole_path), self.judged(key, parse_whole_path));
            if let (Some(certificate_path), Some(key_path)) = paths {
                let files = CertificateFiles::new(certificate_path, key_path);
                let (certificate, key) = (self.place(certificate), self.place(key));
                places.push(CertificatePlace { files, certificate, key });
            }
        }
        (places.iter().map(|place| place.files.clone()).collect(), places)
    }

    fn trusted(&mut self, front: &WrittenHttp) -> Vec<ipnet::IpNet> {
        let trusted = self.few(&front.trusted, MAX_TRUSTED, "ranges");
        let trusted: Vec<_> = trusted.iter().filter_map(|one| self.judged(one, parse_range)).collect();
        if let Some(proxy_header) = &front.proxy_header
            && *proxy_header.get_ref()
            && front.trusted.is_empty()
        {
            let words = "proxy_header is for connections of those in trusted, and nobody is: write trusted = \
                         [\"10.0.0.0/8\"], say, or leave proxy_header out";
            self.complain(proxy_header.span(), words);
        }
        trusted
    }

    fn front_limits(&mut self, front: &WrittenHttp) -> FrontLimits {
        let mut limits = FrontLimits::default();
        if let Some(written) = &front.max_head
            && let Some(size) = self.judged(written, |words| Size::read(words, LEAST_HEAD, MOST_HEAD))
        {
            // At most a MiB.
            limits.max_head = size.bytes() as usize;
        }
        if let Some(written) = &front.max_body {
            let size = self.judged(written, |words| Size::read(words, LEAST_BODY, MOST_BODY));
            limits.max_body = size.map(Size::bytes);
        }
        for (written, limit) in [
            (&front.connections, &mut limits.connections),
            (&front.connections_per_address, &mut limits.connections_per_address),
        ] {
            *limit = self.size(written.as_ref(), CONNECTIONS).unwrap_or(*limit);
        }
        // At most a million.
        let requests = self.size(front.requests_per_second.as_ref(), REQUESTS);
        limits.requests_per_second = requests.map(|requests| requests as u32);
        let WrittenTimeouts { head, silence, keep_alive, connect } = &front.timeouts;
        for (written, limit) in [
            (head, &mut limits.head),
            (silence, &mut limits.silence),
            (keep_alive, &mut limits.keep_alive),
            (connect, &mut limits.connect),
        ] {
            *limit = self.span(written.as_ref(), (LEAST_WAIT, MOST_WAIT)).unwrap_or(*limit);
        }
        limits
    }

    /// A time within bounds; none where none is written, or a wrong one.
    fn span(&mut self, written: Option<&Spanned<String>>, (least, most): (Span, Span)) -> Option<Duration> {
        self.judged(written?, |words| Span::read(words, least, most))
    }

    /// A service, and where its folders are named.
    fn service(&mut self, written: &WrittenService) -> (ServiceConfig, Vec<(TargetForm, Place)>) {
        let name = self.judged(&written.name, parse_name).unwrap_or_else(|| written.name.get_ref().clone());
        let mut service = ServiceConfig::new(name);
        let hosts = self.few(&written.hosts, MAX_HOSTS, "hosts");
        service.hosts = hosts.iter().filter_map(|host| self.value::<HostPattern>(host)).collect();
        if written.hosts.is_empty() {
            let words = format!(
                "the service {} has no host: write hosts = [\"{}.example.org\"], or [\"*\"] for all that is no other's",
                service.name, service.name
            );
            self.complain(written.name.span(), words);
        }
        if let Some(paths) = &written.paths {
            if paths.get_ref().is_empty() {
                self.complain(paths.span(), "there is no path: leave paths out for all of them");
            }
            let paths = self.few(paths.get_ref(), MAX_PATHS, "paths");
            service.paths = paths.iter().filter_map(|path| self.judged(path, parse_path)).collect();
        }
        let folders = self.targets(&written.targets, &mut service);
        service.users =
            self.few(&written.users, MAX_USERS, "users").iter().map(|user| user.get_ref().clone()).collect();
        service.balance =
            written.balance.as_ref().and_then(|written| self.value(written)).unwrap_or_default();
        service.host = written.host.as_ref().and_then(|written| self.value(written)).unwrap_or_default();
        service.https = written.https.as_ref().and_then(|written| self.value(written)).unwrap_or_default();
        service.send_proxy = written.send_proxy;
        service.health = written.health.as_ref().and_then(|health| self.health(health));
        (service, folders)
    }

    fn targets(
        &mut self,
        written: &[Spanned<WrittenTarget>],
        service: &mut ServiceConfig,
    ) -> Vec<(TargetForm, Place)> {
        let mut folders = Vec::new();
        for one in self.few(written, MAX_TARGETS, "targets") {
            let (to, span, weight) = one.get_ref().parts(one.span());
            // At most the largest weight.
            let weight = self.size(weight, 1..=MAX_WEIGHT as usize).unwrap_or(1) as u32;
            let target: TargetForm = match to.parse() {
                Ok(target) => target,
                Err(error) => {
                    self.complain(span, error);
                    continue;
                }
            };
            if service.targets.iter().any(|before| before.to == target) {
                let words =
                    format!("{target} is a target of this service already: give one of them more weight");
                self.complain(span.clone(), words);
            }
            if matches!(target, TargetForm::Folder(_)) {
                folders.push((target.clone(), program::place(self.text, span.start)));
            }
            service.targets.push(TargetConfig::new(target, weight));
        }
        folders
    }

    fn health(&mut self, written: &WrittenHealth) -> Option<HealthCheck> {
        let path = self.judged(&written.path, parse_health_path);
        let mut health = HealthCheck::new(path?);
        health.interval = self.span(written.interval.as_ref(), INTERVAL).unwrap_or(health.interval);
        let timeout = self.span(written.timeout.as_ref(), ANSWER);
        health.timeout = timeout.unwrap_or(health.timeout.min(health.interval));
        if let Some(written) = &written.timeout
            && health.timeout > health.interval
        {
            let words = "the timeout is longer than the interval, and one check ends before the next begins: shorten it";
            self.complain(written.span(), words);
        }
        // At most a hundred.
        let mut in_a_row =
            |written: &Option<_>| self.size(written.as_ref(), IN_A_ROW).map(|times| times as u32);
        health.rise = in_a_row(&written.rise).unwrap_or(health.rise);
        health.fall = in_a_row(&written.fall).unwrap_or(health.fall);
        Some(health)
    }
}

fn parse_domain(words: &str) -> Result<String, String> {
    let domain = host_name(words).map_err(|error| match error {
        HostError::Star(_) => {
            let bare = words.strip_prefix("*.").unwrap_or("apps.example.org");
            format!(
                "\"{}\" has a *: write the domain alone, \"{}\"",
                words.escape_debug(),
                bare.escape_debug()
            )
        }
        error => error.to_string(),
    })?;
    let label = domain.rsplit('.').next().unwrap_or_default();
    if domain.starts_with('[') || label.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("\"{domain}\" is an address, below which there are no names: write a domain"));
    }
    match domain.len() {
        0..=MAX_DOMAIN => Ok(domain),
        len => Err(format!("the domain has {len} bytes, {MAX_DOMAIN} are the most: shorten it")),
    }
}

fn parse_whole_path(words: &str) -> Result<PathBuf, WordsError> {
    let path = PathBuf::from(words);
    if path.is_absolute() { Ok(path) } else { Err(WordsError::Relative(words.into())) }
}
