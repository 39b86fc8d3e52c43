//! Listeners that want the same port of the same end ([`refuse`]). Of two at the server, the later would take the port
//! from the one before; here it would be told of another program, which is this one.

use std::net::IpAddr;

use gkd_proxy::listener::Service;
use gkd_proxy::program::Failure;

use super::layer::Text;
use crate::listeners::{End, Named, Wanted};

/// Refuses the first listener that wants a port of one before it; `written` is where they stand, in the same order.
pub(super) fn refuse<'a>(
    listeners: &[Named<Wanted>],
    written: impl Iterator<Item = &'a Text>,
) -> Result<(), Failure> {
    for (index, (late, text)) in listeners.iter().zip(written).enumerate() {
        if let Some(first) = listeners[..index].iter().find(|first| overlap(&first.it, &late.it)) {
            return Err(text.wrong(format!(
                "listener \"{}\" wants a port that \"{}\" has: give one of them another, or leave it out",
                late.it.listener, first.it.listener
            )));
        }
    }
    Ok(())
}

fn overlap(one: &Wanted, other: &Wanted) -> bool {
    let is_udp = |wanted: &Wanted| matches!(wanted.listener.service, Service::Udp { .. });
    let (these, those) = (one.listener.ports, other.listener.ports);
    // Port 0 is another each time.
    let same_port = these.first() > 0 && these.first() <= those.last() && those.first() <= these.last();
    let same_address = match (one.end, one.listener.bind, other.listener.bind) {
        (End::Here, ..) => same_address(one.listener.bind_or_loopback(), other.listener.bind_or_loopback()),
        (End::Server, Some(one), Some(other)) => same_address(one, other),
        // Which one the server chooses is not known here.
        (End::Server, None, None) => true,
        (End::Server, ..) => false,
    };
    one.end == other.end && is_udp(one) == is_udp(other) && same_port && same_address
}

/// Whether who has a port of one of them has that of the other.
fn same_address(one: IpAddr, other: IpAddr) -> bool {
    let all = one.is_unspecified() || other.is_unspecified();
    one == other || (all && one.is_ipv4() == other.is_ipv4())
}
