//! gkd-proto
pub mod config;
pub mod error;
pub mod handshake;
pub mod id;
pub mod packet;
pub mod session;
pub mod transmit;
pub mod varint;
pub use config::SessionConfig;
pub use session::{ConnectionMut, Event, PathSample, Read, Session, SessionStats, TunnelStats};
pub use transmit::Transmit;
