//! The keys of a TLS connection whose handshake is done, taken out of the library, and the next ones (RFC 8446 §7.2).

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{Error, ExtractedSecrets, SupportedCipherSuite, Tls13CipherSuite};

use super::record::{Opener, Sealer};

/// Makes the keys of each direction, one after the other.
pub(super) struct Keys {
    side: Side,
    suite: &'static Tls13CipherSuite,
}

enum Side {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    /// Those of a client, and the first of each direction.
    pub(super) fn of_client(connection: UnbufferedClientConnection) -> Result<(Self, Opener, Sealer), Error> {
        let (secrets, next) = connection.dangerous_into_kernel_connection()?;
        let suite = next.negotiated_cipher_suite();
        Self::new(Side::Client(next), suite, secrets)
    }

    /// Those of a server.
    pub(super) fn of_server(connection: UnbufferedServerConnection) -> Result<(Self, Opener, Sealer), Error> {
        let (secrets, next) = connection.dangerous_into_kernel_connection()?;
        let suite = next.negotiated_cipher_suite();
        Self::new(Side::Server(next), suite, secrets)
    }

    fn new(
        side: Side,
        suite: SupportedCipherSuite,
        secrets: ExtractedSecrets,
    ) -> Result<(Self, Opener, Sealer), Error> {
        // There is another where a crate beside this one turns on TLS 1.2 in the library.
        #[allow(irrefutable_let_patterns)]
        let SupportedCipherSuite::Tls13(suite) = suite else { return Err(Error::HandshakeNotComplete) };
        let ((received, open), (sent, seal)) = (secrets.rx, secrets.tx);
        let (opener, sealer) = (Opener::new(open, received)?, Sealer::new(suite, seal, sent)?);
        Ok((Self { side, suite }, opener, sealer))
    }

    /// What opens all behind the other end's `KeyUpdate`.
    pub(super) fn next_opener(&mut self) -> Result<Opener, Error> {
        let (sequence, secrets) = match &mut self.side {
            Side::Client(client) => client.update_rx_secret()?,
            Side::Server(server) => server.update_rx_secret()?,
        };
        Opener::new(secrets, sequence)
    }

    /// What seals all behind this end's `KeyUpdate`.
    pub(super) fn next_sealer(&mut self) -> Result<Sealer, Error> {
        let (sequence, secrets) = match &mut self.side {
            Side::Client(client) => client.update_tx_secret()?,
            Side::Server(server) => server.update_tx_secret()?,
        };
        Sealer::new(self.suite, secrets, sequence)
    }
}
