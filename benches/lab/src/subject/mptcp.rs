//! MPTCP of the kernel: the addresses from which it opens its subflows.

use anyhow::Result;

use crate::namespace::run;
use crate::net::{self, Net};

/// The kernel's own bound on subflows beside the first (`MPTCP_PM_ADDR_MAX`).
const MAX_SUBFLOWS: usize = 8;

/// What it lacks here, if anything.
pub(super) fn missing() -> Option<&'static str> {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(socket2::Protocol::MPTCP));
    match (socket, run("ip", &["mptcp", "limits", "show"])) {
        (Err(_), _) => Some("the kernel has none"),
        (_, Err(_)) => Some("the ip of this machine does not know it"),
        _ => None,
    }
}

/// Gives the client's kernel addresses to open subflows from: with a second path the address there, else further
/// addresses on the first.
pub(super) fn prepare(net: &Net, subflows: usize) -> Result<()> {
    let most = subflows.min(MAX_SUBFLOWS).to_string();
    for space in [&net.client, &net.server] {
        space.ip(&["mptcp", "limits", "set", "subflow", &most, "add_addr_accepted", &most])?;
    }
    if net.path_count() > 1 {
        let second = net::client_address(1).to_string();
        net.client.ip(&["mptcp", "endpoint", "add", &second, "dev", &net::device(1), "subflow"])?;
        return Ok(());
    }
    for subflow in 0..subflows.min(MAX_SUBFLOWS) {
        // Beside the client's 10.99.1.1 and the server's 10.99.1.2.
        let address = format!("10.99.1.{}", 11 + subflow);
        let device = net::device(0);
        net.client.ip(&["addr", "add", &format!("{address}/24"), "dev", &device])?;
        net.client.ip(&["mptcp", "endpoint", "add", &address, "dev", &device, "subflow"])?;
    }
    Ok(())
}
