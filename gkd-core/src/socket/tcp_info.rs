//! `TCP_INFO`, which no safe crate reads: one `getsockopt`, and the reading of its fields. Linux only, and
//! the only file of the library that holds `unsafe`.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use gkd_proto::PathSample;

/// `struct tcp_info` of `linux/tcp.h` up to `tcpi_bytes_retrans` (Linux 4.19). The kernel only ever appends to
/// it and says how much it filled in; the C library's headers are often older than the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// `TCP_CA_Recovery` of `linux/tcp.h`; above it is only `TCP_CA_Loss`.
const CA_RECOVERY: u8 = 3;

/// A sender that may have no more on its way, and has more to send, as good as stands still: BBR measures the round trip
/// so, for 200 ms every ten seconds (`bbr_cwnd_min_target`), and behind a time-out it is no better.
const FEW_SEGMENTS: u32 = 4;

/// What the kernel thinks of the connection, and whether it keeps as few segments on their way as while BBR measures; empty
/// for a socket that is not TCP.
pub(super) fn sample(socket: BorrowedFd<'_>) -> (PathSample, bool) {
    let told = read(socket).map(|(info, len)| (info.sample(len), info.snd_cwnd <= FEW_SEGMENTS));
    told.unwrap_or_default()
}

/// The round trip by which BBR goes, in microseconds (`struct tcp_bbr_info` of `linux/inet_diag.h`). For a socket whose
/// congestion control that is: others tell something else here, or nothing.
pub(super) fn bbr_round_trip(socket: BorrowedFd<'_>) -> Option<u32> {
    /// `bbr_bw_lo`, `bbr_bw_hi`, `bbr_min_rtt`, `bbr_pacing_gain`, `bbr_cwnd_gain`.
    const FIELDS: usize = 5;
    let mut fields = [0_u32; FIELDS];
    let mut len = size_of::<[u32; FIELDS]>() as libc::socklen_t;
    // SAFETY: as in `read`: `fields` is `len` bytes of writable memory for the length of the call, of which the kernel
    // writes at most `len`, and every bit pattern is a valid integer.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CC_INFO,
            fields.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    (failed == 0 && len as usize == size_of::<[u32; FIELDS]>()).then_some(fields[2])
}

/// The structure, and how many of its bytes the kernel filled in; the rest is zero.
fn read(socket: BorrowedFd<'_>) -> Option<(TcpInfo, usize)> {
    let mut info = TcpInfo::default();
    let mut len = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: `socket` is open while it is borrowed. `info` is `len` bytes of writable memory for the length of
    // the call, of which the kernel writes at most `len`, and every bit pattern is a valid `TcpInfo`: its fields
    // are integers, and it has no padding that anything reads. `len` is a valid `socklen_t` to write to.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (failed == 0).then_some((info, len as usize))
}

impl TcpInfo {
    /// The part that a session asks for; `len` bytes of the structure are known.
    fn sample(&self, len: usize) -> PathSample {
        let known = |end_of_field: usize| end_of_field <= len;
        let unsent = known(offset_of!(Self, min_rtt)).then_some(u64::from(self.notsent_bytes));
        let least = known(offset_of!(Self, data_segs_in)).then_some(self.min_rtt);
        let rate = known(offset_of!(Self, busy_time)).then_some(self.delivery_rate);
        let unacknowledged = if known(size_of::<Self>()) {
            // `bytes_acked` counts SYN and FIN too, hence saturating.
            self.bytes_sent.saturating_sub(self.bytes_retrans).saturating_sub(self.bytes_acked)
        } else {
            u64::from(self.unacked) * u64::from(self.snd_mss)
        };
        PathSample {
            // Zero, or all bits, is the kernel's way to say that nothing was measured yet.
            round_trip: (self.rtt > 0).then(|| Duration::from_micros(self.rtt.into())),
            least_round_trip: least
                .filter(|least| (1..u32::MAX).contains(least))
                .map(|least| Duration::from_micros(least.into())),
            rate: rate.filter(|rate| *rate > 0),
            unsent,
            unacknowledged: known(offset_of!(Self, sacked)).then_some(unacknowledged),
            held_up: u64::from(self.sacked) * u64::from(self.snd_mss),
            recovering: self.ca_state >= CA_RECOVERY
                || (self.snd_cwnd <= FEW_SEGMENTS && unsent.is_some_and(|unsent| unsent > 0)),
            pauses: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_kernels_header() {
        assert_eq!(offset_of!(TcpInfo, rtt), 68);
        assert_eq!(offset_of!(TcpInfo, pacing_rate), 104);
        assert_eq!(offset_of!(TcpInfo, notsent_bytes), 144);
        assert_eq!(offset_of!(TcpInfo, delivery_rate), 160);
        assert_eq!(offset_of!(TcpInfo, bytes_sent), 200);
        assert_eq!(size_of::<TcpInfo>(), 216);
    }

    #[test]
    fn an_old_kernel_tells_what_it_knows() {
        let info = TcpInfo {
            rtt: 1500,
            unacked: 3,
            snd_mss: 1448,
            notsent_bytes: 7,
            min_rtt: 1200,
            delivery_rate: 9,
            bytes_sent: 5000,
            bytes_retrans: 1000,
            bytes_acked: 3001,
            ca_state: 4,
            ..TcpInfo::default()
        };
        let new = info.sample(size_of::<TcpInfo>());
        assert_eq!(
            new,
            PathSample {
                round_trip: Some(Duration::from_micros(1500)),
                least_round_trip: Some(Duration::from_micros(1200)),
                rate: Some(9),
                unsent: Some(7),
                unacknowledged: Some(999),
                held_up: 0,
                recovering: true,
                pauses: None,
            }
        );
        let few = TcpInfo { ca_state: 0, snd_cwnd: 4, ..info };
        assert!(few.sample(size_of::<TcpInfo>()).recovering, "it has more to send");
        assert!(!TcpInfo { notsent_bytes: 0, ..few }.sample(size_of::<TcpInfo>()).recovering);
        assert!(!TcpInfo { snd_cwnd: 10, ..few }.sample(size_of::<TcpInfo>()).recovering);
        let old = info.sample(104);
        assert_eq!((old.rate, old.unsent, old.unacknowledged), (None, None, Some(3 * 1448)));
        assert_eq!(old.least_round_trip, None);
        for unknown in [0, u32::MAX] {
            let info = TcpInfo { min_rtt: unknown, ..TcpInfo::default() };
            assert_eq!(info.sample(size_of::<TcpInfo>()).least_round_trip, None);
        }
        assert_eq!(TcpInfo::default().sample(0), PathSample::default());
    }

    #[test]
    fn a_socket_that_is_not_tcp_tells_nothing() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(sample(std::os::fd::AsFd::as_fd(&udp)), (PathSample::default(), false));
        assert_eq!(bbr_round_trip(std::os::fd::AsFd::as_fd(&udp)), None);
    }
}
