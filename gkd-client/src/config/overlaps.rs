//! Listeners that want the same port of the same end, and services that are announced twice ([`refuse`]). Of two at the server, the later would take the port
//! from the one before; here it would be told of another program, which is this one.

use std::net::IpAddr;

use gkd_proxy::Listener;
use gkd_proxy::listener::Service;
use gkd_proxy::program::Failure;

use super::layer::Text;
use crate::listeners::{Named, Wanted};

/// Refuses the first listener that wants a port of one before it, or the first service that is one before it; `written` is where they stand, in the same order.
pub(super) fn refuse<'a>(
    listeners: &[Named<Wanted>],
    written: impl Iterator<Item = &'a Text>,
) -> Result<(), Failure> {
    for (index, (late, text)) in listeners.iter().zip(written).enumerate() {
        for first in &listeners[..index] {
            if let Some(words) = overlap(&first.it, &late.it) {
                return Err(text.wrong(words));
            }
        }
    }
    Ok(())
}

/// What is wrong with having both, if anything is.
fn overlap(first: &Wanted, late: &Wanted) -> Option<String> {
    let (one, other, overlap) = match (first, late) {
        (Wanted::Here(one), Wanted::Here(other)) => {
            (one, other, same_address(one.bind_or_loopback(), other.bind_or_loopback()))
        }
        (Wanted::Server(one), Wanted::Server(other)) => {
            let overlap = match (one.bind, other.bind) {
                (Some(one), Some(other)) => same_address(one, other),
                // Which one the server chooses is not known here.
                (None, None) => true,
                _ => false,
            };
            (one, other, overlap)
        }
        (Wanted::Service(one), Wanted::Service(other)) => {
            let same = (&one.name, &one.to) == (&other.name, &other.to);
            return same.then(|| {
                let (name, to) = (&one.name, &one.to);
                format!("the service {name} is announced with {to} twice: leave one of them out, or give it a weight")
            });
        }
        _ => return None,
    };
    let is_udp = |listener: &Listener| matches!(listener.service, Service::Udp { .. });
    let (these, those) = (one.ports, other.ports);
    // Port 0 is another each time.
    let same_port = these.first() > 0 && these.first() <= those.last() && those.first() <= these.last();
    (overlap && same_port && is_udp(one) == is_udp(other)).then(|| {
        format!(
            "listener \"{other}\" wants a port that \"{one}\" has: give one of them another, or leave it out"
        )
    })
}

/// Whether who has a port of one of them has that of the other.
fn same_address(one: IpAddr, other: IpAddr) -> bool {
    let all = one.is_unspecified() || other.is_unspecified();
    one == other || (all && one.is_ipv4() == other.is_ipv4())
}
