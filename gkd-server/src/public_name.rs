//! How clients reach this server: what its links name ([`PublicName`]), and finding it where nobody said.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use gkd_core::identity::{PublicKey, SecretKey};
use gkd_core::link::{Address, AddressError, Host, Link, MAX_ADDRESSES};
use gkd_proxy::Rules;
use gkd_proxy::rules::Denial;

use crate::listen::ListenAddress;

/// The addresses of a link: `HOST:PORT[-PORT][,HOST:PORT...]`, one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicName(Vec<Address>);

/// Words are no public name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicNameError {
    Address(AddressError),
    TooMany(usize),
}

impl PublicName {
    /// The link of a user.
    pub(crate) fn link(&self, server: PublicKey, user: SecretKey) -> Link {
        Link::new(server, user, self.0.clone())
    }

    /// The hosts in it.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.0.iter().map(|address| &address.host)
    }
}

impl FromStr for PublicName {
    type Err = PublicNameError;

    fn from_str(text: &str) -> Result<Self, PublicNameError> {
        let count = text.split(',').count();
        if count > MAX_ADDRESSES {
            return Err(PublicNameError::TooMany(count));
        }
        let addresses = text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>();
        addresses.map(Self).map_err(PublicNameError::Address)
    }
}

impl fmt::Display for PublicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl std::error::Error for PublicNameError {}

impl fmt::Display for PublicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "not a public name, HOST:PORT: {error}"),
            Self::TooMany(count) => {
                write!(f, "{count} addresses are more than the {MAX_ADDRESSES} of a link: leave some out")
            }
        }
    }
}

/// What was found where nobody said how clients reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The name.
    pub(crate) name: PublicName,
    /// What a person should know of it.
    pub(crate) note: Option<String>,
}

/// Finds the public name of a server that listens there: a public address of an interface, else the machine's
/// name. None while it listens on no port that is known yet.
pub(crate) fn find(listen: &[ListenAddress]) -> Option<Found> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let interfaces: Vec<IpAddr> = interfaces.iter().map(|interface| interface.ip()).collect();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    find_among(listen, &interfaces, &name)
}

fn find_among(listen: &[ListenAddress], interfaces: &[IpAddr], machine: &str) -> Option<Found> {
    let listen: Vec<_> = listen.iter().filter(|address| *address.ports().start() != 0).collect();
    let everywhere = |address: &&&ListenAddress| matches!(address.host, Host::Ip(ip) if ip.is_unspecified());
    let all: Vec<_> = listen.iter().filter(everywhere).collect();
    // Addresses of interfaces that a wildcard of their family takes; more clients have IPv4.
    let mut reached: Vec<_> = interfaces
        .iter()
        .filter_map(|ip| {
            let same = |host: &Host| matches!(host, Host::Ip(wildcard) if wildcard.is_ipv4() == ip.is_ipv4());
            all.iter().find(|address| same(&address.host)).map(|address| (*ip, **address))
        })
        .collect();
    reached.sort_by_key(|(ip, _)| ip.is_ipv6());
    if let Some((ip, address)) = reached.iter().find(|(ip, _)| is_public(*ip)) {
        return Some(Found { name: named(Host::Ip(*ip), address), note: None });
    }
    let is_specific_public =
        |address: &&&ListenAddress| matches!(address.host, Host::Ip(ip) if is_public(ip));
    if let Some(address) = listen.iter().find(is_specific_public) {
        return Some(Found { name: named(address.host.clone(), address), note: None });
    }
    match all.first() {
        Some(address) => Some(by_name(machine, address, &reached)),
        None => listen.first().map(|address| {
            let host = &address.host;
            let note = format!(
                "the link names {host}, where the server listens, which is no public address: \
                 if clients reach it otherwise, edit the link, or give --public HOST:PORT"
            );
            Found { name: named(host.clone(), address), note: Some(note) }
        }),
    }
}

/// The machine has no public address: the one of a router in front of it leads here, or nothing does.
fn by_name(machine: &str, address: &ListenAddress, reached: &[(IpAddr, &ListenAddress)]) -> Found {
    let host = format!("{machine}:1").parse::<Address>().map(|address| address.host);
    let host = host.unwrap_or_else(|_| Host::Name("localhost".into()));
    let near = reached.iter().map(|(ip, _)| *ip).find(|ip| !ip.is_loopback() && !is_link_local(*ip));
    let near = near.map(|ip| format!(" (in its own network it is {})", Host::Ip(ip))).unwrap_or_default();
    let note = format!(
        "this machine has no public address of its own{near}, so the link names it {host}: \
         if that name does not lead here, edit the link, or give --public HOST:PORT"
    );
    Found { name: named(host, address), note: Some(note) }
}

fn named(host: Host, listen: &ListenAddress) -> PublicName {
    let ports = listen.ports();
    // Port 0 was left out before, and a range is never reversed.
    let ports = gkd_core::link::PortRange::new(*ports.start(), *ports.end());
    PublicName(ports.map(|ports| Address { host, ports }).into_iter().collect())
}

/// Public as the rules for destinations see it; that it is this machine's own is no objection here.
fn is_public(ip: IpAddr) -> bool {
    // Any port but that of mail.
    matches!(
        Rules::default().check(None, SocketAddr::new(ip, 443)),
        Ok(()) | Err(Denial::Own | Denial::OwnUnknown)
    )
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(words: &[&str]) -> Vec<ListenAddress> {
        words.iter().map(|words| words.parse().unwrap()).collect()
    }

    fn found(words: &[&str], interfaces: &[&str]) -> (String, Option<String>) {
        let interfaces: Vec<IpAddr> = interfaces.iter().map(|ip| ip.parse().unwrap()).collect();
        let found = find_among(&listen(words), &interfaces, "machine").unwrap();
        (found.name.to_string(), found.note)
    }

    const USUAL: [&str; 2] = ["0.0.0.0:9990", "[::]:9990"];

    #[test]
    fn a_public_address_of_an_interface_comes_first() {
        let interfaces = ["127.0.0.1", "192.168.1.2", "2606:4700::1", "9.9.9.9", "fe80::1"];
        assert_eq!(found(&USUAL, &interfaces), ("9.9.9.9:9990".into(), None));
        assert_eq!(found(&USUAL, &["10.0.0.1", "2606:4700::1"]), ("[2606:4700::1]:9990".into(), None));
        assert_eq!(found(&["[::]:1-9"], &interfaces), ("[2606:4700::1]:1-9".into(), None));
        assert_eq!(found(&["9.9.9.10:443"], &interfaces), ("9.9.9.10:443".into(), None));
    }

    #[test]
    fn behind_a_router_it_is_the_machines_name_with_a_note() {
        let (name, note) = found(&USUAL, &["127.0.0.1", "fe80::1", "192.168.1.2"]);
        let note = note.unwrap();
        assert_eq!(name, "machine:9990");
        assert!(note.contains("192.168.1.2") && note.contains("--public"), "{note}");
        assert!(found(&USUAL, &[]).1.is_some());
    }

    #[test]
    fn one_that_listens_on_one_address_is_reached_there() {
        let (name, note) = found(&["127.0.0.1:1"], &["127.0.0.1", "9.9.9.9"]);
        assert_eq!(name, "127.0.0.1:1");
        assert!(note.is_some());
    }

    #[test]
    fn no_name_is_made_of_a_port_that_is_not_known() {
        assert_eq!(find_among(&listen(&["0.0.0.0:0"]), &[], "machine"), None);
    }

    #[test]
    fn a_machine_whose_name_is_none_is_local() {
        let found = find_among(&listen(&USUAL), &[], "not a name").unwrap();
        assert_eq!(found.name.to_string(), "localhost:9990");
    }

    #[test]
    fn names_survive_the_round_trip() {
        let text = "server.example:9990-9999,[2606:4700::1]:443";
        assert_eq!(text.parse::<PublicName>().unwrap().to_string(), text);
        for wrong in ["", "server.example", "a:1,", "a:0"] {
            assert!(wrong.parse::<PublicName>().is_err(), "{wrong}");
        }
        assert_eq!(["a:1"; 17].join(",").parse::<PublicName>(), Err(PublicNameError::TooMany(17)));
    }
}
