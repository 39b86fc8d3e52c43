//! Frames by hand against the `ws` listener with an echo behind: the cases of the Autobahn suite, by its numbers.

use tokio::time::timeout;

use super::*;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The bit of the last frame of a message.
const FIN: u8 = 0x80;

/// What is sent, and what has to come of it.
struct Case {
    name: String,
    sent: Vec<u8>,
    /// How many bytes are written at once.
    chop: usize,
    /// What comes back of data; of a case that is closed, no more than this.
    echo: Vec<u8>,
    pongs: Vec<Vec<u8>>,
    /// The code of the Close; none where the case is in order, and closed with 1000 by the test.
    close: Option<u16>,
}

fn case(name: impl Into<String>, frames: &[Vec<u8>]) -> Case {
    let name = name.into();
    Case { name, sent: frames.concat(), chop: usize::MAX, echo: Vec::new(), pongs: Vec::new(), close: None }
}

impl Case {
    fn chopped(mut self, chop: usize) -> Self {
        self.chop = chop;
        self
    }

    fn echoes(mut self, echo: impl AsRef<[u8]>) -> Self {
        self.echo = echo.as_ref().to_vec();
        self
    }

    fn pongs(mut self, pongs: &[&[u8]]) -> Self {
        self.pongs = pongs.iter().map(|pong| pong.to_vec()).collect();
        self
    }

    fn closes(mut self, code: u16) -> Self {
        self.close = Some(code);
        self
    }

    async fn run(self, listening: &Listening) {
        let mut io = program(listening).await;
        upgrade(&mut io).await;
        let (mut reader, mut writer) = io.into_split();
        let (sent, chop, name) = (self.sent, self.chop, self.name.clone());
        let write = tokio::spawn(async move {
            for piece in sent.chunks(chop.min(sent.len().max(1))) {
                // One that was closed takes no more.
                let _ = writer.write_all(piece).await;
            }
            writer
        });
        let (mut echo, mut pongs, mut closed) = (Vec::new(), Vec::new(), None);
        let mut write = Some(write);
        let in_order = self.close.is_none();
        while closed.is_none() {
            if in_order
                && echo.len() == self.echo.len()
                && pongs.len() == self.pongs.len()
                && let Some(write) = write.take()
            {
                let mut writer = write.await.unwrap();
                writer.write_all(&frame(FIN | CLOSE, &1000u16.to_be_bytes())).await.unwrap();
                tokio::spawn(async move {
                    // Kept until the other end has closed.
                    tokio::time::sleep(LONG).await;
                    drop(writer);
                });
            }
            match read_frame(&mut reader).await {
                (first, payload) if first == FIN | BINARY => echo.extend(payload),
                (first, payload) if first == FIN | PONG => pongs.push(payload),
                (first, payload) if first == FIN | CLOSE => closed = Some(payload),
                (first, payload) => panic!("{name}: a frame {first:x} with {payload:x?}"),
            }
        }
        let closed = closed.unwrap();
        // No code is answered with none.
        let code = closed.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        assert_eq!(code, self.close.unwrap_or(1000), "{name}");
        match in_order {
            true => assert!(echo == self.echo, "{name}: {} bytes came back", echo.len()),
            false => assert!(self.echo.starts_with(&echo), "{name}: {echo:x?} came back"),
        }
        assert_eq!(pongs, self.pongs, "{name}");
        // And then it is closed.
        assert_eq!(reader.read(&mut [0]).await.unwrap_or(0), 0, "{name}");
    }
}

/// A frame of the server.
async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = io.read_u8().await.unwrap();
    let length = match io.read_u8().await.unwrap() {
        126 => usize::from(io.read_u16().await.unwrap()),
        127 => io.read_u64().await.unwrap() as usize,
        short @ ..=125 => usize::from(short),
        masked => panic!("a server masks its frame: {masked:x}"),
    };
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

/// Runs all against one listener.
async fn run(cases: Vec<Case>) {
    let (listening, far) =
        listening(&format!("ws://0:127.0.0.1:{}", echo().await.port()), &ListenConfig::default()).await;
    serve_far_ends(far);
    for case in cases {
        let name = case.name.clone();
        timeout(LONG, case.run(&listening)).await.unwrap_or_else(|_| panic!("{name} goes on"));
    }
}

#[tokio::test]
async fn lengths() {
    let mut cases = Vec::new();
    for length in [0, 125, 126, 127, 128, 65_535, 65_536] {
        let payload = vec![b'*'; length];
        cases.push(case(format!("1.1 {length}"), &[frame(FIN | TEXT, &payload)]).echoes(&payload));
        let payload = vec![0xfe; length];
        cases.push(case(format!("1.2 {length}"), &[frame(FIN | BINARY, &payload)]).echoes(&payload));
    }
    for opcode in [TEXT, BINARY] {
        let payload = vec![b'*'; 65_536];
        let sent = frame(FIN | opcode, &payload);
        cases.push(case(format!("1.{opcode}.8"), &[sent]).chopped(997).echoes(&payload));
    }
    run(cases).await;
}

#[tokio::test]
async fn pings_and_pongs() {
    let ping = |payload: &[u8]| frame(FIN | PING, payload);
    let (long, binary) = (vec![0xfe; 125], b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff");
    let ten: Vec<_> = (0..10u8).map(|number| vec![b'a' + number]).collect();
    let tens: Vec<_> = ten.iter().map(|payload| ping(payload)).collect();
    let answers: Vec<_> = ten.iter().map(Vec::as_slice).collect();
    let mut cases = vec![
        case("2.1", &[ping(b"")]).pongs(&[b""]),
        case("2.2", &[ping(b"Hello, world!")]).pongs(&[b"Hello, world!"]),
        case("2.3", &[ping(binary)]).pongs(&[binary]),
        case("2.4", &[ping(&long)]).pongs(&[&long]),
        case("2.5", &[ping(&[0xfe; 126])]).closes(1002),
        case("2.6", &[ping(&long)]).pongs(&[&long]).chopped(1),
        case("2.7", &[frame(FIN | PONG, b"")]),
        case("2.8", &[frame(FIN | PONG, b"unsolicited")]),
        case("2.9", &[frame(FIN | PONG, b"unsolicited"), ping(b"x")]).pongs(&[b"x"]),
    ];
    // Of several that wait, the last alone has to be answered (RFC 6455, section 5.5.3); one at a time all are.
    for (payload, sent) in answers.iter().zip(&tens) {
        cases
            .push(case(format!("2.10 {payload:?}"), std::slice::from_ref(sent)).pongs(&[payload]).chopped(1));
    }
    run(cases).await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes() {
    let mut cases = Vec::new();
    for bits in 1..8 {
        let bits = bits << 4;
        for (opcode, payload) in [
            (TEXT, &b"Hello"[..]),
            (BINARY, &[0xff; 8]),
            (PING, b"Hello"),
            (PONG, b""),
            (CLOSE, &[0x03, 0xe8]),
        ] {
            let (good, bad) = (frame(FIN | TEXT, b"good"), frame(FIN | bits | opcode, payload));
            let name = format!("3 {bits:x} of {opcode:x}");
            cases.push(case(&name, &[good, bad.clone(), frame(FIN | PING, b"")]).echoes("good").closes(1002));
            cases.push(case(name, &[bad]).closes(1002).chopped(1));
        }
    }
    for opcode in (3..8).chain(11..16) {
        for payload in [&b""[..], b"reserved opcode payload"] {
            let bad = frame(FIN | opcode, payload);
            let name = format!("4 {opcode:x} {}", payload.len());
            cases.push(case(&name, std::slice::from_ref(&bad)).closes(1002));
            let good = frame(FIN | TEXT, b"good");
            cases.push(case(name, &[good, bad, frame(FIN | PING, b"")]).echoes("good").closes(1002));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn fragments() {
    let (one, two) = (frame(TEXT, b"fragment1"), frame(FIN | CONTINUATION, b"fragment2"));
    let (ping, more) = (frame(FIN | PING, b"ping"), frame(CONTINUATION, b"more"));
    let both = "fragment1fragment2";
    let mut cases = vec![
        case("5.1", &[frame(PING, b"fragment1"), frame(FIN | CONTINUATION, b"2")]).closes(1002),
        case("5.2", &[frame(PONG, b"fragment1"), frame(FIN | CONTINUATION, b"2")]).closes(1002),
        case("5.3", &[one.clone(), two.clone()]).echoes(both),
        case("5.5", &[one.clone(), two.clone()]).echoes(both).chopped(1),
        case("5.6", &[one.clone(), ping.clone(), two.clone()]).echoes(both).pongs(&[b"ping"]),
        case("5.8", &[one.clone(), ping.clone(), two.clone()]).echoes(both).pongs(&[b"ping"]).chopped(1),
        case("5.15", &[one.clone(), two.clone(), more.clone()]).echoes(both).closes(1002),
        case("5.18", &[one.clone(), frame(FIN | TEXT, b"fragment2")]).closes(1002),
        case("5.18 binary", &[one.clone(), frame(FIN | BINARY, b"fragment2")]).closes(1002),
        case("6.1.2", &[frame(TEXT, b""), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b"")]),
        case("6.1.3", &[frame(TEXT, b""), frame(CONTINUATION, b"middle"), frame(FIN | CONTINUATION, b"")])
            .echoes("middle"),
    ];
    for first in [FIN | CONTINUATION, CONTINUATION] {
        for chop in [usize::MAX, 1] {
            let bad = frame(first, b"non-continuation payload");
            cases.push(case("5.9", &[bad, frame(FIN | TEXT, b"Hello")]).closes(1002).chopped(chop));
        }
    }
    let parts = [one, more.clone(), more.clone(), more, two];
    cases.push(case("5.19", &parts).echoes("fragment1moremoremorefragment2"));
    run(cases).await;
}

#[tokio::test]
async fn text() {
    let mut cases = Vec::new();
    for good in [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\0",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}",
        "\u{1fffe}\u{1ffff}\u{fdd0}",
    ] {
        let bytes = good.as_bytes();
        cases.push(case(format!("6.2 {good:?}"), &[frame(FIN | TEXT, bytes)]).echoes(good));
        for at in 1..bytes.len() {
            let cut = [frame(TEXT, &bytes[..at]), frame(FIN | CONTINUATION, &bytes[at..])];
            cases.push(case(format!("6.2 {good:?} at {at}"), &cut).echoes(good));
            cases.push(case(format!("6.2 {good:?} at {at}, in pieces"), &cut).echoes(good).chopped(3));
        }
        let single: Vec<_> = bytes.iter().map(|byte| frame(CONTINUATION, &[*byte])).collect();
        let all = [vec![frame(TEXT, b"")], single, vec![frame(FIN | CONTINUATION, b"")]].concat();
        cases.push(case(format!("6.2.4 {good:?}"), &all).echoes(good));
    }
    for bad in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
        // Cut off.
        b"\xce",
        b"\xce\xba\xe1",
        b"\xce\xba\xe1\xbd",
        b"\xf0\x9f\x98",
        // Five and six bytes, and beyond the last.
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        // Continuations alone, and beginnings alone.
        b"\x80",
        b"\x80\xbf\x80\xbf",
        b"\xc0\x20\xc1\x20",
        b"\xe0\x20\xe1\x20",
        b"\xf0\x20\xf1\x20",
        // Nothing that may be.
        b"\xfe",
        b"\xff",
        // Longer than it has to be.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        // Halves of pairs.
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
    ] {
        // What came before it may have gone on.
        cases.push(case(format!("6.3 {bad:x?}"), &[frame(FIN | TEXT, bad)]).echoes(bad).closes(1007));
        let single: Vec<_> = bad.iter().map(|byte| frame(CONTINUATION, &[*byte])).collect();
        let all = [vec![frame(TEXT, b"")], single, vec![frame(FIN | CONTINUATION, b"")]].concat();
        cases.push(case(format!("6.4 {bad:x?}"), &all).echoes(bad).closes(1007).chopped(1));
    }
    // As soon as it is known: the frame does not have to end, nor the message.
    for (first, bad) in [(TEXT, &b"\xed\xa0"[..]), (FIN | TEXT, b"\xf4\x90"), (FIN | TEXT, b"good\xff")] {
        let sent = [head(first, 100, 0x80), MASK.to_vec(), frame(first, bad)[6..].to_vec()].concat();
        cases.push(case(format!("6.4.4 {bad:x?}"), &[sent]).echoes(bad).closes(1007));
    }
    run(cases).await;
}

#[tokio::test]
async fn closes() {
    let close = |payload: &[u8]| frame(FIN | CLOSE, payload);
    let with = |code: u16, reason: &[u8]| close(&[&code.to_be_bytes()[..], reason].concat());
    let normal = || with(1000, b"");
    let mut cases = vec![
        case("7.1.2", &[normal(), normal()]).closes(1000),
        case("7.1.3", &[normal(), frame(FIN | PING, b"")]).closes(1000),
        case("7.1.4", &[normal(), frame(FIN | TEXT, b"late")]).closes(1000),
        case("7.1.5", &[frame(TEXT, b"begun"), normal(), frame(FIN | CONTINUATION, b"")])
            .echoes("begun")
            .closes(1000),
        case("7.1.6", &[normal(), frame(FIN | TEXT, &vec![b'*'; 256 * 1024]), frame(FIN | PING, b"")])
            .closes(1000),
        case("7.3.1", &[close(b"")]).closes(1005),
        case("7.3.2", &[close(b"a")]).closes(1002),
        case("7.3.3", &[normal()]).closes(1000),
        case("7.3.4", &[with(1000, b"Hello World!")]).closes(1000),
        case("7.3.5", &[with(1000, &[b'*'; 123])]).closes(1000),
        case("7.3.6", &[with(1000, &[b'*'; 124])]).closes(1002),
        case("7.5.1", &[with(1000, b"\xce\xba\xed\xa0\x80edited")]).closes(1007),
        case("5.1 close", &[frame(CLOSE, &1000u16.to_be_bytes())]).closes(1002),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("7.7 {code}"), &[with(code, b"")]).closes(code));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        for reason in [&b""[..], b"reason"] {
            cases.push(case(format!("7.9 {code}"), &[with(code, reason)]).closes(1002));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn what_goes_beyond_a_bound_or_is_not_masked() {
    let unmasked = [head(FIN | TEXT, 5, 0), b"Hello".to_vec()].concat();
    let of = |first, length: usize| [head(first, length, 0x80), MASK.to_vec()].concat();
    let long = |byte, mebibytes: usize| vec![byte; mebibytes * 1024 * 1024];
    let cases = vec![
        case("not masked", &[unmasked]).closes(1002),
        // No length has the highest bit.
        case("a frame of 2^63", &[of(FIN | BINARY, 1 << 63)]).closes(1002),
        case("a ping of 2^62", &[of(FIN | PING, 1 << 62)]).closes(1002),
        case("a large message in a frame", &[frame(FIN | BINARY, &long(7, 17))]).echoes(long(7, 17)),
        case("one in fragments", &[frame(BINARY, &long(1, 1)), frame(FIN | CONTINUATION, &long(2, 2))])
            .echoes([long(1, 1), long(2, 2)].concat()),
    ];
    run(cases).await;
}
