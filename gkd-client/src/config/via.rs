//! The proxy on the way to the server: `--via URL`, or `--via env` for what the environment names, in the variables and
//! forms that curl reads. A tunnel is a CONNECT, so it is `https_proxy` that is meant for it. Nothing of the environment
//! counts unless it is asked for.

use std::net::IpAddr;

use gkd_core::Via;
use gkd_core::link::{Host, Link};
use gkd_proxy::program::Failure;
use ipnet::IpNet;

use super::Environment;
use super::layer::{Origin, Text};

/// The word that asks for the environment.
const ENV: &str = "env";

/// Where a proxy may stand, the first that is set.
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// Where the hosts may stand that are reached directly, likewise.
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxy, and the hosts that are dialled without it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaching {
    pub(crate) via: Option<Via>,
    pub(crate) direct: Vec<Host>,
    /// What is to be told in the log.
    pub(crate) told: Option<String>,
}

/// Whether this variable is one of those that are read here.
pub(super) fn reads(variable: &str) -> bool {
    PROXIES.contains(&variable) || EXCEPTIONS.contains(&variable)
}

/// How the servers of these links are reached.
pub(super) fn read(via: &Text, links: &[Link], environment: &Environment) -> Result<Reaching, Failure> {
    if via.text != ENV {
        let via: Via = via.read(|text| match text.eq_ignore_ascii_case(ENV) {
            true => Err(format!("write {ENV} in small letters, or http://HOST:PORT")),
            false => text.parse().map_err(|error: gkd_core::ViaError| error.to_string()),
        })?;
        let told = Some(format!("the tunnels go through the proxy at {}", via.address()));
        return Ok(Reaching { via: Some(via), direct: Vec::new(), told });
    }
    let Some((variable, url)) = first(&PROXIES, environment) else {
        let told = Some(format!("no proxy is set in {}: the server is reached directly", PROXIES.join(", ")));
        return Ok(Reaching { told, ..Reaching::default() });
    };
    let proxy = Text { text: url.trim().to_owned(), origin: Origin::Variable(variable) };
    let via: Via = proxy.read(str::parse)?;
    let (mut direct, mut through) = (Vec::new(), false);
    let exceptions = first(&EXCEPTIONS, environment);
    for address in links.iter().flat_map(|link| &link.addresses) {
        if exceptions.is_some_and(|(_, list)| leaves_out(list, &address.host)) {
            direct.push(address.host.clone());
        } else {
            through = true;
        }
    }
    let mut told = format!("{variable} is set: the tunnels go through the proxy at {}", via.address());
    if let (Some((name, _)), false) = (exceptions, direct.is_empty()) {
        let shown: Vec<_> = direct.iter().map(ToString::to_string).collect();
        let shown = shown.join(", ");
        told = match through {
            true => format!("{told}, but not those to {shown}, which {name} leaves out"),
            false => {
                format!("{variable} is set, but {name} leaves out {shown}: the server is reached directly")
            }
        };
    }
    Ok(Reaching { via: Some(via), direct, told: Some(told) })
}

/// The first of the variables that is set to something.
fn first<'a>(names: &[&'static str], environment: &'a Environment) -> Option<(&'static str, &'a str)> {
    names.iter().find_map(|name| Some((*name, environment.get(name)?)))
}

/// Whether a list of hosts, with commas or blanks between, has this one in it: a name by itself or by the end of it from
/// a dot on, an address by itself or by a range `ADDRESS/BITS`, everything by `*` alone. What is none of these, and may
/// mean something to other programs, is passed over.
fn leaves_out(list: &str, host: &Host) -> bool {
    let list = list.trim();
    if list == "*" {
        return true;
    }
    let mut entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    match host {
        Host::Ip(ip) => entries.any(|entry| is_of(entry, *ip)),
        Host::Name(name) => entries.any(|entry| ends_with(name, entry)),
    }
}

fn is_of(entry: &str, ip: IpAddr) -> bool {
    if let Ok(range) = entry.parse::<IpNet>() {
        return range.contains(&ip);
    }
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse() == Ok(ip)
}

fn ends_with(name: &str, entry: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let entry = entry.strip_suffix('.').unwrap_or(entry).to_ascii_lowercase();
    let entry = entry.strip_prefix('.').unwrap_or(&entry);
    // "example.com" is not the end of "notexample.com".
    let front = name.strip_suffix(entry);
    !entry.is_empty() && front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use gkd_core::identity::SecretKey;
    use gkd_proxy::program::Status;

    use super::*;

    fn links(addresses: &[&str]) -> Vec<Link> {
        let (server, user) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        vec![Link::new(server.public(), user, addresses)]
    }

    fn flag(text: &str) -> Text {
        Text { text: text.to_owned(), origin: Origin::Flag("--via") }
    }

    /// Where the proxy is, which hosts are direct, and what is told.
    fn of_environment<const N: usize>(
        addresses: &[&str],
        pairs: [(&str, &str); N],
    ) -> (Option<String>, Vec<String>, String) {
        let reaching = read(&flag("env"), &links(addresses), &Environment::from(pairs)).unwrap();
        let direct = reaching.direct.iter().map(ToString::to_string).collect();
        (reaching.via.map(|via| via.address().to_string()), direct, reaching.told.unwrap())
    }

    #[test]
    fn the_environment_is_looked_at_when_it_is_asked_for_and_in_curls_order() {
        let all = [
            ("ALL_PROXY", "d:1"),
            ("all_proxy", "c:1"),
            ("HTTPS_PROXY", "b:1"),
            ("https_proxy", "http://u:p@a:1/"),
        ];
        let proxy = |pairs| of_environment(&["s:1"], pairs).0.unwrap();
        assert_eq!(proxy(all), "a:1");
        assert_eq!(proxy([all[0], all[1], all[2], ("https_proxy", " ")]), "b:1");
        assert_eq!(proxy([all[0], all[1], ("x", ""), ("x", "")]), "c:1");
        assert_eq!(proxy([all[0], ("http_proxy", "e:1"), ("x", ""), ("x", "")]), "d:1");
        // A proxy for what is not encrypted is none for tunnels.
        let (proxy, _, told) = of_environment(&["s:1"], [("http_proxy", "e:1"), ("HTTP_PROXY", "e:1")]);
        assert_eq!(proxy, None);
        assert!(told.starts_with("no proxy is set in https_proxy,") && told.ends_with("directly"), "{told}");
        let environment = Environment::from([("https_proxy", "a:1"), ("no_proxy", "*")]);
        let reaching = read(&flag("http://p:1"), &links(&["s:1"]), &environment).unwrap();
        assert_eq!(reaching.via.unwrap().address().to_string(), "p:1");
        assert!(reaching.direct.is_empty());
    }

    #[test]
    fn a_wrong_variable_is_of_the_configuration_and_a_wrong_flag_of_usage() {
        let wrong =
            |text, variable| read(&flag(text), &links(&["s:1"]), &Environment::from([variable])).unwrap_err();
        let failure = wrong("env", ("ALL_PROXY", "socks5://me:secret@p:1"));
        assert_eq!(failure.status, Status::Config);
        assert!(failure.message.starts_with("ALL_PROXY: a proxy of socks5:// cannot be used"), "{failure}");
        let failure = wrong("https://p:1", ("ALL_PROXY", "p:1"));
        assert_eq!(failure.status, Status::Usage);
        assert!(failure.message.starts_with("--via: a proxy of https:// cannot be used"), "{failure}");
        let failure = wrong("ENV", ("ALL_PROXY", "p:1"));
        assert!(failure.message.contains("small letters"), "{failure}");
    }

    #[test]
    fn servers_that_are_left_out_are_reached_directly_and_told() {
        let with = |list| {
            of_environment(&["a.example:1", "192.0.2.7:1"], [("https_proxy", "p:1"), ("NO_PROXY", list)])
        };
        let (_, direct, told) = with("a.example");
        assert_eq!(direct, ["a.example"]);
        assert!(told.ends_with("p:1, but not those to a.example, which NO_PROXY leaves out"), "{told}");
        let (_, direct, told) = with("a.example 192.0.2.0/24");
        assert_eq!(direct.len(), 2);
        assert!(told.ends_with("leaves out a.example, 192.0.2.7: the server is reached directly"), "{told}");
        assert!(with("b.example").1.is_empty());
    }

    #[test]
    fn names_are_left_out_by_their_end_and_addresses_by_range() {
        for (list, host, out) in [
            ("*", "anything", true),
            ("a, *", "anything", false),
            ("example.com", "example.com", true),
            ("example.com", "a.EXAMPLE.com", true),
            (".example.com", "a.example.com", true),
            (".example.com", "example.com", true),
            ("example.com.", "a.example.com", true),
            ("example.com", "a.example.com.", true),
            ("example.com", "notexample.com", false),
            ("a.example.com", "example.com", false),
            ("com", "example.com", true),
            (".", "example.com", false),
            (",, ,", "example.com", false),
            ("b,c\tlocalhost", "localhost", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.7/16", "192.0.99.1", true),
            ("0.0.0.0/0", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.3.7", false),
            ("192.0.2.0/33", "192.0.2.7", false),
            ("192.0.2", "192.0.2.7", false),
            ("2.7", "192.0.2.7", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("[2001:db8::1]", "2001:db8::1", true),
            ("2001:db8::1", "2001:db8::2", false),
            ("::/0", "192.0.2.7", false),
            // An address that a name has is not known here.
            ("0.0.0.0/0", "example.com", false),
        ] {
            let host = match host.parse() {
                Ok(ip) => Host::Ip(ip),
                Err(_) => Host::Name(host.to_owned()),
            };
            assert_eq!(leaves_out(list, &host), out, "{list}: {host}");
        }
    }
}
