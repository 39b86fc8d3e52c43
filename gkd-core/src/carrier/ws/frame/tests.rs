//! The cases of the Autobahn test suite as far as the carrier takes what they send, and what lies beside them.

use super::*;

const MASK: Mask = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client may send it: first byte as it is, the length as short as can be.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let head = Head::new(Opcode::Binary, payload.len(), Some(MASK));
    let mut frame = head.bytes().to_vec();
    frame[0] = first;
    let at = frame.len();
    frame.resize(at + payload.len(), 0);
    copy_masked(payload, &mut frame[at..], &mut { MASK });
    frame
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index ^ (index >> 8)) as u8).collect()
}

/// What a decoder makes of this, given `step` bytes at a time.
fn decode(from: Side, wire: &[u8], step: usize) -> (Vec<u8>, Decoder) {
    decode_with(Decoder::new(from), wire, step)
}

fn decode_with(mut decoder: Decoder, wire: &[u8], step: usize) -> (Vec<u8>, Decoder) {
    let mut payload = Vec::new();
    for part in wire.chunks(step.max(1)) {
        let mut part = part.to_vec();
        let len = decoder.decode(&mut part);
        payload.extend_from_slice(&part[..len]);
    }
    (payload, decoder)
}

/// What it comes to, however it is cut.
#[track_caller]
fn expect(from: Side, wire: &[u8], payload: &[u8], end: Option<End>) -> Decoder {
    for step in [1, 2, 3, 7, 125, 997] {
        let (got, decoder) = decode(from, wire, step);
        assert!(
            got == payload && decoder.end() == end,
            "{step}: {:?} after {} bytes",
            decoder.end(),
            got.len()
        );
    }
    let (got, decoder) = decode(from, wire, wire.len());
    assert!(got == payload && decoder.end() == end, "{:?} after {} bytes", decoder.end(), got.len());
    decoder
}

#[track_caller]
fn expect_violation(wire: &[u8], violation: Violation) {
    // What came before it still counts; what comes behind does not.
    let wire = [&binary(b"before"), wire, &binary(b"behind")].concat();
    expect(Side::Client, &wire, b"before", Some(End::Broken(violation)));
}

#[test]
fn every_length_is_read_whole_and_in_pieces() {
    for len in [0, 1, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, 131_072] {
        let payload = bytes(len);
        assert!(expect(Side::Client, &binary(&payload), &payload, None).is_between());
        let bare = [Head::new(Opcode::Binary, len, None).bytes(), &payload].concat();
        assert!(expect(Side::Server, &bare, &payload, None).is_between());
    }
}

#[test]
fn lengths_are_written_as_the_rfc_has_them() {
    let head = |len, mask| Head::new(Opcode::Binary, len, mask).bytes().to_vec();
    assert_eq!(head(125, None), [0x82, 125]);
    assert_eq!(head(126, None), [0x82, 126, 0, 126]);
    assert_eq!(head(65_535, None), [0x82, 126, 0xff, 0xff]);
    assert_eq!(head(65_536, None), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(head(5, Some(MASK)), [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d]);
    assert_eq!(head(65_536, Some(MASK)).len(), HEAD_MAX);
}

/// RFC 6455 §5.7, with the opcode of binary messages.
#[test]
fn the_rfcs_examples() {
    expect(Side::Server, &[0x82, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], b"Hello", None);
    let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    expect(Side::Client, &masked, b"Hello", None);
    let fragments = [0x02, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    expect(Side::Server, &fragments, b"Hello", None);
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let pinged = expect(Side::Client, &ping, b"", None).take_ping();
    assert_eq!(pinged.unwrap().bytes(), b"Hello");
}

#[test]
fn fragments_are_one_stream_with_control_frames_between_them() {
    let whole = [
        frame(0x02, b"one "),
        frame(0x89, b"ping within"),
        frame(0x00, b""),
        frame(0x00, b"two "),
        frame(0x8a, b"unasked pong"),
        frame(0x80, b"three"),
        binary(b"."),
    ];
    let mut decoder = expect(Side::Client, &whole.concat(), b"one two three.", None);
    assert_eq!(decoder.take_ping().unwrap().bytes(), b"ping within");
    assert!(decoder.take_ping().is_none() && decoder.is_between());
    assert!(!expect(Side::Client, &frame(0x02, b"a"), b"a", None).is_between());
    let cut = binary(b"abc");
    assert!(!expect(Side::Client, &cut[..cut.len() - 1], b"ab", None).is_between());
    assert!(!expect(Side::Client, &cut[..1], b"", None).is_between());
    let empty = [frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")];
    assert!(expect(Side::Client, &empty.concat(), b"", None).is_between());
}

#[test]
fn a_message_is_continued_only_within_one() {
    for first in [0x00, 0x80] {
        expect_violation(&frame(first, b"x"), Violation::NotBegun);
        let behind_a_whole_one = [frame(0x02, b""), frame(0x80, b""), frame(first, b"x")];
        expect_violation(&behind_a_whole_one.concat(), Violation::NotBegun);
    }
    for first in [0x02, 0x82, 0x01, 0x81] {
        expect_violation(&[frame(0x02, b""), frame(first, b"x")].concat(), Violation::NotEnded);
    }
}

#[test]
fn the_newest_of_many_pings_is_the_one_that_is_answered() {
    for len in [0, 1, 124, 125] {
        let (old, new) = (frame(0x89, b"old"), frame(0x89, &bytes(len)));
        let mut decoder = expect(Side::Client, &[old.repeat(10), new].concat(), b"", None);
        assert_eq!(decoder.take_ping().unwrap().bytes(), bytes(len));
        assert!(decoder.take_ping().is_none());
    }
    // Nothing is answered that is not there whole.
    let ping = frame(0x89, b"abc");
    assert!(expect(Side::Client, &ping[..ping.len() - 1], b"", None).take_ping().is_none());
}

#[test]
fn control_frames_are_short_and_whole() {
    for first in [0x88, 0x89, 0x8a] {
        expect_violation(&frame(first, &bytes(126)), Violation::LongControl);
        expect_violation(&frame(first, &bytes(65_536)), Violation::LongControl);
        expect_violation(&frame(first & 0x7f, b""), Violation::ControlInFragments);
        // Told at once, not when the rest of the length has come.
        expect_violation(&frame(first, &bytes(126))[..2], Violation::LongControl);
    }
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for first in 0..=u8::MAX {
        let violation = match (first & 0x70, first & 0x0f) {
            (1.., _) => Violation::Reserved,
            (_, opcode @ (3..=7 | 11..=15)) => Violation::Opcode(opcode),
            (_, 1) => Violation::Text,
            _ => continue,
        };
        for payload in [&b""[..], b"abc", &bytes(126)] {
            expect_violation(&frame(first, payload), violation);
        }
    }
}

#[test]
fn a_client_masks_and_a_server_does_not() {
    for first in [0x82, 0x02, 0x89, 0x88] {
        expect_violation(&[first, 0], Violation::Unmasked);
        let end = Some(End::Broken(Violation::Masked));
        expect(Side::Server, &frame(first, b""), b"", end);
    }
}

#[test]
fn a_length_is_minimal_and_bounded() {
    let with = |length: &[u8]| [&[0x82], length, &MASK, b"payload"].concat();
    for length in [0_u16, 1, 125] {
        let [high, low] = length.to_be_bytes();
        expect_violation(&with(&[0xfe, high, low]), Violation::Length);
    }
    for length in [0_u64, 125, 126, 65_535, 1 << 63, u64::MAX] {
        expect_violation(&with(&[&[0xff][..], &length.to_be_bytes()].concat()), Violation::Length);
    }
    for len in [FRAME_MAX + 1, LENGTH_MAX] {
        let wire = with(&[&[0xff][..], &len.to_be_bytes()].concat());
        expect_violation(&wire, Violation::TooBig { len, most: FRAME_MAX });
    }
    let wire = [&[0x82, 0xff][..], &FRAME_MAX.to_be_bytes(), &[0; 4], b"payload"].concat();
    assert!(!expect(Side::Client, &wire, b"payload", None).is_between());
}

#[test]
fn a_decoder_takes_frames_as_long_as_it_is_told() {
    let with = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes(), &[0; 4], b"payload"].concat();
    for most in [70_000, FRAME_MAX + 1, LENGTH_MAX - 1] {
        let decoder = || Decoder::taking_text(Side::Client).with_frame_max(most);
        let (payload, mut begun) = decode_with(decoder(), &with(most), 5);
        assert_eq!((&payload[..], begun.end(), begun.is_between()), (&b"payload"[..], None, false));
        // It goes on with it.
        assert_eq!((begun.decode(&mut [7; 9]), begun.end()), (9, None));
        let len = most + 1;
        let (payload, broken) = decode_with(decoder(), &with(len), 5);
        let expected = End::Broken(Violation::TooBig { len, most });
        assert_eq!((payload.len(), broken.end()), (0, Some(expected)));
    }
    // All that there is, and what is no length is still none.
    let longest = || Decoder::new(Side::Client).with_frame_max(LENGTH_MAX);
    assert_eq!(decode_with(longest(), &with(LENGTH_MAX), 1000).1.end(), None);
    let broken = decode_with(longest(), &with(LENGTH_MAX + 1), 1000).1.end();
    assert_eq!(broken, Some(End::Broken(Violation::Length)));
}

#[test]
fn close_frames_carry_what_may_be_sent() {
    let close = |payload: &[u8]| [frame(0x88, payload), binary(b"behind")].concat();
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    expect(Side::Client, &close(b""), b"", Some(End::Closed(None)));
    let valid = (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]);
    for code in valid {
        let end = Some(End::Closed(Some(code)));
        expect(Side::Client, &close(&with(code, b"")), b"", end);
        expect(Side::Client, &close(&with(code, "κόσμε".as_bytes())), b"", end);
        expect(Side::Client, &close(&with(code, &[b'*'; 123])), b"", end);
    }
    let invalid = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in invalid {
        expect_violation(&close(&with(code, b"reason")), Violation::CloseCode(code));
    }
    expect_violation(&close(b"\x03"), Violation::CloseLength);
    // Cut, overlong, a surrogate, beyond Unicode.
    for reason in
        [&b"\xce"[..], b"\xce\xba\xe1\xbd\xb9\xcf", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
    {
        expect_violation(&close(&with(1000, reason)), Violation::CloseReason);
    }
    expect_violation(&frame(0x88, &with(1000, &[b'*'; 124])), Violation::LongControl);
}

#[test]
fn a_close_can_be_answered_with_what_it_carries() {
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    for payload in [vec![], with(1000, b""), with(4000, "κόσμε".as_bytes())] {
        let decoder = expect(Side::Client, &frame(0x88, &payload), b"", Some(End::Closed(code_of(&payload))));
        assert_eq!(decoder.close().unwrap().bytes(), payload);
        assert!(decoder.is_between());
    }
    // A ping is none, nor is one that breaks a rule, nor one that is not there whole.
    for wire in [frame(0x89, b"\x03\xe8"), frame(0x88, b"\x03"), frame(0x88, b"\x03\xe8")[..7].to_vec()] {
        assert!(decode(Side::Client, &wire, 1).1.close().is_none(), "{wire:x?}");
    }
}

fn code_of(close: &[u8]) -> Option<u16> {
    close.first_chunk().map(|code| u16::from_be_bytes(*code))
}

#[test]
fn a_reason_is_cut_between_characters_to_fit() {
    let reason = format!("{}é", "x".repeat(CONTROL_MAX - 3));
    let payload = ControlPayload::of_close_because(code::UNEXPECTED, &reason);
    assert_eq!(payload.bytes(), [&[0x03, 0xf3][..], &[b'x'; CONTROL_MAX - 3]].concat());
    assert_eq!(ControlPayload::of_close_because(code::NORMAL, "é").bytes(), b"\x03\xe8\xc3\xa9");
}

/// What a decoder that takes text comes to with this, however it is cut; what it told last.
#[track_caller]
fn expect_text(wire: &[u8], end: Option<End>) -> Vec<u8> {
    let mut payload = Vec::new();
    for step in [1, 2, 3, 7, wire.len()] {
        let told;
        let decoder;
        (told, decoder) = decode_with(Decoder::taking_text(Side::Client), wire, step);
        assert_eq!(decoder.end(), end, "{step}");
        assert!(end.is_some() || step == 1 || told == payload, "{step}");
        payload = told;
    }
    payload
}

#[test]
fn text_is_told_as_it_comes_wherever_it_is_cut() {
    let text = "κόσμε \u{10ffff}\u{0}é!".as_bytes();
    assert_eq!(expect_text(&frame(0x81, text), None), text);
    for at in 0..=text.len() {
        let ping = frame(0x89, b"\xff");
        let cut = [frame(0x01, &text[..at]), ping, frame(0x00, b""), frame(0x80, &text[at..])];
        assert_eq!(expect_text(&cut.concat(), None), text, "{at}");
    }
    let single: Vec<_> = text.iter().map(|byte| frame(0x00, &[*byte])).collect();
    let all = [frame(0x01, b""), single.concat(), frame(0x80, b""), frame(0x82, b"\xff")].concat();
    assert_eq!(expect_text(&all, None), [text, b"\xff"].concat());
    // A Close may come anywhere.
    let closed = [frame(0x01, b"a\xc3"), frame(0x88, b"")].concat();
    assert_eq!(expect_text(&closed, Some(End::Closed(None))), b"a\xc3");
}

#[test]
fn what_is_no_text_is_told_at_once() {
    let broken = Some(End::Broken(Violation::NotUtf8));
    for bad in [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0", b"\xf4\x90", b"\xf0\x80", b"\x80"] {
        // Neither the frame nor the message has to end.
        let wire = frame(0x01, &[bad, b"more"].concat());
        expect_text(&wire[..wire.len() - 4], broken);
        let (last, before) = bad.split_last().unwrap();
        let cut = [frame(0x01, b"good"), frame(0x00, before), frame(0x00, &[*last])].concat();
        assert!(expect_text(&cut, broken).starts_with(b"good"));
    }
    // An end within a character.
    for cut in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
        expect_text(&frame(0x81, cut), broken);
        expect_text(&[frame(0x01, cut), frame(0x80, b"")].concat(), broken);
    }
    // What the next message begins with does not complete it, and a binary message is not looked at.
    let whole = [frame(0x01, b"a"), frame(0x80, b""), frame(0x02, b"\xc3"), frame(0x80, b"\xff")].concat();
    assert_eq!(expect_text(&whole, None), b"a\xc3\xff");
    expect_text(&[frame(0x82, b"\xc3"), frame(0x81, b"\xa9")].concat(), broken);
}

#[test]
fn each_violation_has_the_code_that_the_rfc_names() {
    for (violation, code) in [
        (Violation::Reserved, 1002),
        (Violation::CloseCode(7), 1002),
        (Violation::Text, 1003),
        (Violation::CloseReason, 1007),
        (Violation::NotUtf8, 1007),
        (Violation::TooBig { len: 1, most: 0 }, 1009),
    ] {
        assert_eq!(violation.code(), code, "{violation}");
    }
}

proptest::proptest! {
    #[test]
    fn a_mask_in_parts_is_the_mask_of_the_whole(payload: Vec<u8>, mask: Mask, cuts: [u8; 4]) {
        let expected: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        let mut copied = vec![0; payload.len()];
        let (mut rest, mut turned) = (&mut copied[..], mask);
        let mut at = 0;
        for cut in cuts.into_iter().map(usize::from).chain([usize::MAX]) {
            let here = cut.min(rest.len());
            let (part, behind) = rest.split_at_mut(here);
            copy_masked(&payload[at..at + here], part, &mut turned);
            (rest, at) = (behind, at + here);
        }
        proptest::prop_assert_eq!(&copied, &expected);
        let mut turned = mask;
        for part in copied.chunks_mut(usize::from(cuts[0]).max(1)) {
            unmask(part, &mut turned);
        }
        proptest::prop_assert_eq!(copied, payload);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_tell_more_than_came(wire: Vec<u8>, step in 1..64_usize) {
        for from in [Side::Client, Side::Server] {
            let (payload, _) = decode(from, &wire, step);
            proptest::prop_assert!(payload.len() <= wire.len());
            let (whole, _) = decode(from, &wire, wire.len());
            proptest::prop_assert_eq!(payload, whole);
            // Of text, more may be told before it turns out to be none when it comes in pieces.
            let (payload, parts) = decode_with(Decoder::taking_text(from), &wire, step);
            let (whole, decoder) = decode_with(Decoder::taking_text(from), &wire, wire.len());
            proptest::prop_assert!(payload.starts_with(&whole) && parts.end() == decoder.end());
        }
    }
}
