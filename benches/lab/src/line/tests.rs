use super::*;

const MS: Duration = Duration::from_millis(1);

/// 8 Mbit/s: a packet of 1,000 bytes takes 1 ms.
fn way() -> Way {
    Way { rate: Rate::mbit(8), delay: 10 * MS, queue: Queue::Time(5 * MS), loss: Loss::None, cap: None }
}

/// An IPv4 packet of 1,000 bytes from a port, TCP, with a sequence number.
fn packet(port: u16, sequence: u32) -> Vec<u8> {
    let mut packet = vec![0; 1000];
    packet[0] = 0x45;
    packet[9] = 6;
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32] = 0x50;
    packet
}

/// All that leaves, with the time at which it was due and its port.
fn drain(line: &mut Line) -> Vec<(Duration, u16)> {
    let mut left = Vec::new();
    while let Some(due) = line.due() {
        while let Some((due, packet)) = line.leave(due) {
            left.push((due, u16::from_be_bytes([packet[20], packet[21]])));
        }
    }
    left
}

#[test]
fn packets_leave_at_the_rate_after_the_delay() {
    let mut line = Line::new(way(), 1);
    for port in 1..=3 {
        line.enter(Duration::ZERO, packet(port, 0));
    }
    assert_eq!(line.leave(10 * MS), None);
    assert_eq!(drain(&mut line), [(11 * MS, 1), (12 * MS, 2), (13 * MS, 3)]);
    // The line was free for long: no credit is left over from that.
    line.enter(100 * MS, packet(4, 0));
    line.enter(100 * MS, packet(5, 0));
    assert_eq!(drain(&mut line), [(111 * MS, 4), (112 * MS, 5)]);
}

#[test]
fn a_full_queue_drops_at_its_end() {
    for queue in [Queue::Time(5 * MS), Queue::Bytes(5000)] {
        let mut line = Line::new(Way { queue, ..way() }, 1);
        for port in 1..=20 {
            line.enter(Duration::ZERO, packet(port, 0));
        }
        // One is being sent while five wait.
        let ports: Vec<u16> = drain(&mut line).iter().map(|(_, port)| *port).collect();
        assert_eq!(ports, [1, 2, 3, 4, 5, 6], "{queue:?}");
        assert_eq!((line.counts().dropped, line.counts().left), (14, 6));
    }
}

#[test]
fn random_loss_strikes_its_share_and_repeats_with_its_seed() {
    let lost = |seed| {
        let mut line = Line::new(Way { loss: Loss::percent(1.0), ..way() }, seed);
        let mut ports = Vec::new();
        for count in 0..50_000 {
            line.enter(count * MS, packet(count as u16, 0));
            ports.extend(drain(&mut line).into_iter().map(|(_, port)| port));
        }
        (line.counts().lost, ports)
    };
    let (count, ports) = lost(7);
    // Five standard deviations around 500.
    assert!((390..610).contains(&count), "{count}");
    assert_eq!(lost(7), (count, ports.clone()));
    assert_ne!(lost(8).1, ports);
}

#[test]
fn bursts_lose_their_share_several_in_a_row() {
    let loss = Loss::Bursts { share: 0.02, length: 4.0 };
    let (mut state, mut random) = (LossState::default(), Random::new(3));
    let struck: Vec<bool> = (0..200_000).map(|_| state.strikes(loss, &mut random)).collect();
    let lost = struck.iter().filter(|lost| **lost).count();
    let bursts = struck.windows(2).filter(|pair| !pair[0] && pair[1]).count();
    assert!((3_400..4_600).contains(&lost), "{lost}");
    let length = lost as f64 / bursts as f64;
    assert!((3.5..4.5).contains(&length), "{length}");
}

#[test]
fn the_cap_holds_each_flow_and_the_rate_holds_all() {
    // Two flows of 2 Mbit/s each: a packet in 4 ms, both on a line that carries one in 1 ms.
    let cap = Some((Rate::mbit(2), Queue::Time(100 * MS)));
    let mut line = Line::new(Way { cap, ..way() }, 1);
    for _ in 0..3 {
        line.enter(Duration::ZERO, packet(1, 0));
        line.enter(Duration::ZERO, packet(2, 0));
    }
    let left = drain(&mut line);
    let dues: Vec<u128> = left.iter().map(|(due, _)| due.as_millis()).collect();
    assert_eq!(dues, [15, 16, 19, 20, 23, 24]);
    assert_eq!(left.iter().filter(|(_, port)| *port == 1).count(), 3);
}

#[test]
fn a_capped_flow_drops_at_the_end_of_its_own_queue() {
    let cap = Some((Rate::mbit(2), Queue::Time(4 * MS)));
    let mut line = Line::new(Way { cap, ..way() }, 1);
    for _ in 0..10 {
        line.enter(Duration::ZERO, packet(1, 0));
    }
    line.enter(Duration::ZERO, packet(2, 0));
    let left = drain(&mut line);
    assert_eq!(left.iter().filter(|(_, port)| *port == 1).count(), 2);
    assert_eq!(left.iter().filter(|(_, port)| *port == 2).count(), 1);
}

#[test]
fn a_dark_line_loses_what_is_on_it_and_what_comes_until_it_is_light_again() {
    let mut line = Line::new(way(), 1);
    line.enter(Duration::ZERO, packet(1, 0));
    line.set_dark(true);
    line.enter(MS, packet(2, 0));
    assert_eq!(line.due(), None);
    line.set_dark(false);
    line.enter(20 * MS, packet(3, 0));
    assert_eq!(drain(&mut line), [(31 * MS, 3)]);
    assert_eq!((line.counts().dark, line.counts().left), (2, 1));
}

#[test]
fn payload_is_counted_and_what_is_sent_again_apart() {
    let mut line = Line::new(way(), 1);
    let start = u32::MAX - 1000;
    // 960 bytes each; the numbers wrap, the second is sent again, another flow has its own numbers.
    for sequence in [start, start.wrapping_add(960), start.wrapping_add(960), start.wrapping_add(1920)] {
        line.enter(Duration::ZERO, packet(1, sequence));
    }
    line.enter(Duration::ZERO, packet(2, 5));
    let counts = line.counts();
    assert_eq!((counts.payload, counts.first_time), (5 * 960, 4 * 960));
    assert_eq!((counts.entered, counts.bytes), (5, 5000));
}
