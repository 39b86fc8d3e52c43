//! Where each request of HTTP/1.1 begins and ends in the bytes of a connection ([`Framing`]), judged strictly and ahead of
//! hyper, which reads them.
//!
//! hyper is lenient where RFC 9112 lets a server be: a line may end with a bare LF, a length beside `chunked` is dropped, the
//! same length twice is one. Whoever stands in front of us may have read such a request otherwise, and then what we take for
//! the next request is part of its first. So only what has one reading is passed on; the rest is refused. It does no IO and
//! changes no byte. Which headers mean what else, it does not know.
//!
//! ```text
//! Head ── length ──► Length ──┐
//!   │ └── chunked ─► Chunked ─┼──► Head, or Undecided behind a request for an upgrade ─► Head or Opaque
//!   │ └── no body ────────────┘
//!   └──── refused ─► Ended
//! ```

use hyper::StatusCode;

/// The most bytes of a refused request's first line that the log shows.
const MAX_SHOWN: usize = 256;

/// The largest length: a target may count with a sign.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Its bytes.
    pub(super) bytes: usize,
    /// Its header lines.
    pub(super) lines: usize,
}

/// Why a request is refused whose head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    RequestLine,
    Version,
    TargetTooLong,
    HeadTooLarge,
    TooManyLines,
    BareLf,
    BareCr,
    Nul,
    Fold,
    SpaceBeforeColon,
    Name,
    Length,
    TwoLengths,
    LengthAndCoding,
    Coding,
    CodingUnknown,
    CodingInOldVersion,
    /// The head did not come whole in time.
    TimedOut,
}

/// What is to be done with the bytes that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many from the front may be read by hyper.
    Pass(usize),
    /// So many from the front are empty lines ahead of a request.
    Skip(usize),
    /// Show them again with more behind them.
    More,
    /// Keep them: what they are depends on an answer.
    Hold,
    /// The request is none to be read.
    Refuse(Flaw),
    /// Nothing more is read.
    End,
}

/// The place in a connection's bytes.
#[derive(Debug)]
pub(super) struct Framing {
    limits: HeadLimits,
    state: State,
    /// A chunked body had no clear bounds.
    broken: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Length { left: u64, upgrade: bool },
    Chunked { chunk: Chunk, upgrade: bool },
    Undecided,
    Opaque,
    Ended,
}

/// A head of which some lines have come.
#[derive(Debug, Default)]
struct Head {
    /// Where the first line begins that was not judged.
    line: usize,
    /// How far there is no end of that line.
    looked: usize,
    lines: usize,
    facts: Facts,
}

/// What a head says about what comes behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    old: bool,
    upgrade: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The place in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// So many lines and bytes of them so far.
    Trailers {
        lines: usize,
        bytes: usize,
    },
}

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head(Head::default()), broken: false }
    }

    /// Whether a request is to begin next.
    pub(super) fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.lines == 0)
    }

    /// Whether a head is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether a chunked body broke the rules: nothing is read behind it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// How many bytes may pass unseen.
    pub(super) fn unseen(&self) -> u64 {
        match self.state {
            State::Length { left, .. } | State::Chunked { chunk: Chunk::Data { left }, .. } => left,
            State::Opaque => u64::MAX,
            _ => 0,
        }
    }

    /// So many passed unseen.
    pub(super) fn passed_unseen(&mut self, count: u64) {
        match &mut self.state {
            State::Length { left, upgrade } => {
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.state = Self::behind(*upgrade);
                }
            }
            State::Chunked { chunk: chunk @ Chunk::Data { .. }, .. } => {
                let Chunk::Data { left } = *chunk else { return };
                let left = left.saturating_sub(count);
                *chunk = if left == 0 { Chunk::DataCr } else { Chunk::Data { left } };
            }
            _ => {}
        }
    }

    /// Says what became of the request for an upgrade: what comes behind it is another protocol, or the next request.
    pub(super) fn decide(&mut self, upgraded: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if upgraded { State::Opaque } else { State::Head(Head::default()) };
        }
    }

    /// Ends it: nothing more is read.
    pub(super) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// What is to be done with these bytes, which are those that were not passed, skipped or refused before.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let limits = self.limits;
        match &mut self.state {
            State::Head(head) => match head.read(bytes, limits) {
                Ok(Read::Whole(len)) => {
                    let facts = head.facts;
                    self.state = match (facts.chunked, facts.length) {
                        (true, _) => State::Chunked { chunk: Chunk::START, upgrade: facts.upgrade },
                        (false, Some(left)) if left > 0 => State::Length { left, upgrade: facts.upgrade },
                        (false, _) => Self::behind(facts.upgrade),
                    };
                    Step::Pass(len)
                }
                Ok(Read::Empty(len)) => Step::Skip(len),
                Ok(Read::Part) => Step::More,
                Err(flaw) => {
                    self.state = State::Ended;
                    Step::Refuse(flaw)
                }
            },
            State::Chunked { chunk, upgrade } => {
                let upgrade = *upgrade;
                match chunk.read(bytes, limits) {
                    (0, Progress::Within) => Step::More,
                    (passed, Progress::Within) => Step::Pass(passed),
                    (passed, Progress::Whole) => {
                        self.state = Self::behind(upgrade);
                        Step::Pass(passed)
                    }
                    (passed, Progress::Broken) => {
                        self.broken = true;
                        self.state = State::Ended;
                        if passed == 0 { Step::End } else { Step::Pass(passed) }
                    }
                }
            }
            State::Length { .. } | State::Opaque if bytes.is_empty() => Step::More,
            State::Length { .. } | State::Opaque => {
                let count = self.unseen().min(bytes.len() as u64);
                self.passed_unseen(count);
                // No more than their number, which is a usize.
                Step::Pass(count as usize)
            }
            State::Undecided => Step::Hold,
            State::Ended => Step::End,
        }
    }

    fn behind(upgrade: bool) -> State {
        if upgrade { State::Undecided } else { State::Head(Head::default()) }
    }
}

/// What there is of a head.
enum Read {
    Whole(usize),
    Empty(usize),
    Part,
}

impl Head {
    /// Judges the lines that are whole and new. The same bytes come again, with more behind them, while it is in part.
    fn read(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Read, Flaw> {
        while let Some(lf) = find(&bytes[self.looked..], b'\n').map(|at| self.looked + at) {
            let line = bytes[self.line..lf].strip_suffix(b"\r").ok_or(Flaw::BareLf)?;
            self.line = lf + 1;
            self.looked = self.line;
            if line.is_empty() {
                if self.lines == 0 {
                    *self = Self::default();
                    return Ok(Read::Empty(lf + 1));
                }
                self.facts.judge()?;
                return if lf < limits.bytes { Ok(Read::Whole(lf + 1)) } else { Err(self.too_large()) };
            }
            check_characters(line)?;
            match self.lines {
                0 => self.facts.read_request_line(line)?,
                _ => self.facts.read_field(line)?,
            }
            self.lines += 1;
            // The request's line is none of the headers.
            if self.lines > limits.lines + 1 {
                return Err(Flaw::TooManyLines);
            }
            if self.line >= limits.bytes {
                return Err(self.too_large());
            }
        }
        self.looked = bytes.len();
        if bytes.len() >= limits.bytes { Err(self.too_large()) } else { Ok(Read::Part) }
    }

    /// What is too large: the first line, or all of them.
    fn too_large(&self) -> Flaw {
        match (self.lines, self.looked == self.line) {
            (0, _) | (1, true) => Flaw::TargetTooLong,
            _ => Flaw::HeadTooLarge,
        }
    }
}

/// No line holds an end of line or of a string within.
fn check_characters(line: &[u8]) -> Result<(), Flaw> {
    match line.iter().find(|byte| matches!(byte, b'\r' | 0)) {
        Some(0) => Err(Flaw::Nul),
        Some(_) => Err(Flaw::BareCr),
        None => Ok(()),
    }
}

impl Facts {
    /// `METHOD TARGET HTTP/1.1`, with one space each (RFC 9112, section 3).
    fn read_request_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Flaw::RequestLine);
        };
        if !is_token(method) || target.is_empty() || target.iter().any(u8::is_ascii_control) {
            return Err(Flaw::RequestLine);
        }
        self.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            other if other.starts_with(b"HTTP/") => return Err(Flaw::Version),
            _ => return Err(Flaw::RequestLine),
        };
        self.upgrade = method == b"CONNECT";
        Ok(())
    }

    fn read_field(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let (name, value) = split_field(line)?;
        if same_name(name, b"content-length") {
            if self.length.is_some() {
                return Err(Flaw::TwoLengths);
            }
            self.length = Some(length(value).filter(|_| !name.contains(&b'_')).ok_or(Flaw::Length)?);
        } else if same_name(name, b"transfer-encoding") {
            if self.chunked || name.contains(&b'_') {
                return Err(Flaw::Coding);
            }
            check_coding(value)?;
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            // hyper does not upgrade an older one.
            self.upgrade |= !self.old;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), Flaw> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Flaw::LengthAndCoding),
            (true, None) if self.old => Err(Flaw::CodingInOldVersion),
            _ => Ok(()),
        }
    }
}

/// Name and value of a header line.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Flaw::Fold);
    }
    let colon = find(line, b':').ok_or(Flaw::Name)?;
    let name = &line[..colon];
    match name.last() {
        Some(b' ' | b'\t') => Err(Flaw::SpaceBeforeColon),
        _ if !is_token(name) => Err(Flaw::Name),
        _ => Ok((name, trim(&line[colon + 1..]))),
    }
}

/// Whether a name is this one, or what a program may take for it that hands headers on as variables, where `-` is `_`.
fn same_name(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name.iter().zip(known).all(|(byte, known)| match byte {
            b'_' => *known == b'-',
            byte => byte.eq_ignore_ascii_case(known),
        })
}

/// Digits and nothing else: no sign, no list.
fn length(value: &[u8]) -> Option<u64> {
    let digits =
        std::str::from_utf8(value).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|length| *length <= MAX_LENGTH)
}

/// `chunked`, once. A request with another coding under it is understood and not to be had (RFC 9112, section 6.1).
fn check_coding(value: &[u8]) -> Result<(), Flaw> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim).rev();
    let last = codings.next().is_some_and(is_chunked);
    match last && codings.all(|coding| is_token(coding) && !is_chunked(coding)) {
        true => Err(Flaw::CodingUnknown),
        false => Err(Flaw::Coding),
    }
}

fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    bytes.iter().position(|other| *other == byte)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A token (RFC 9110, section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// What came of a piece of a chunked body.
enum Progress {
    Within,
    Whole,
    Broken,
}

impl Chunk {
    const START: Self = Self::Size { size: 0, digits: 0 };

    /// How many of the bytes may pass, and what is behind them. A trailer's line passes only whole.
    fn read(&mut self, bytes: &[u8], limits: HeadLimits) -> (usize, Progress) {
        let mut at = 0;
        while at < bytes.len() {
            match *self {
                Self::Data { left } => {
                    let count = left.min((bytes.len() - at) as u64);
                    at += count as usize;
                    *self = if left == count { Self::DataCr } else { Self::Data { left: left - count } };
                }
                Self::Trailers { lines, bytes: before } => {
                    let rest = &bytes[at..];
                    let Some(lf) = find(rest, b'\n') else {
                        let most = limits.bytes.saturating_sub(before);
                        return (at, if rest.len() > most { Progress::Broken } else { Progress::Within });
                    };
                    let next = Self::Trailers { lines: lines + 1, bytes: before + lf + 1 };
                    match rest[..lf].strip_suffix(b"\r") {
                        Some([]) => return (at + lf + 1, Progress::Whole),
                        Some(line) if next.is_within(limits) && is_trailer(line) => *self = next,
                        _ => return (at, Progress::Broken),
                    }
                    at += lf + 1;
                }
                _ => match self.after(bytes[at]) {
                    Some(next) => {
                        *self = next;
                        at += 1;
                    }
                    None => return (at, Progress::Broken),
                },
            }
        }
        (at, Progress::Within)
    }

    /// The place behind one more byte of what frames a chunk.
    fn after(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                // Sixteen digits are 64 bits.
                let digit = (byte as char).to_digit(16)?;
                let size =
                    size.checked_mul(16)?.checked_add(digit.into()).filter(|size| *size <= MAX_LENGTH)?;
                Some(Self::Size { size, digits: digits.checked_add(1).filter(|digits| *digits <= 16)? })
            }
            (Self::Size { digits: 0, .. }, _) => None,
            (Self::Size { size, .. }, b';') => Some(Self::Extension { size }),
            (Self::Size { size, .. } | Self::Extension { size }, b'\r') => Some(Self::SizeLf { size }),
            (Self::Extension { .. }, b'\n' | 0) => None,
            (Self::Extension { .. }, _) => Some(self),
            (Self::SizeLf { size: 0 }, b'\n') => Some(Self::Trailers { lines: 0, bytes: 0 }),
            (Self::SizeLf { size }, b'\n') => Some(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Some(Self::DataLf),
            (Self::DataLf, b'\n') => Some(Self::START),
            _ => None,
        }
    }

    fn is_within(self, limits: HeadLimits) -> bool {
        !matches!(self, Self::Trailers { lines, bytes } if lines > limits.lines || bytes > limits.bytes)
    }
}

/// Whether a line may stand behind a body: nothing there says how a message is framed or whom it is for
/// (RFC 9110, section 6.5.1).
fn is_trailer(line: &[u8]) -> bool {
    let never: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
    check_characters(line)
        .and_then(|()| split_field(line))
        .is_ok_and(|(name, _)| !never.iter().any(|known| same_name(name, known)))
}

/// The first line of a request, as far as the log shows it.
pub(super) fn first_line(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end.min(MAX_SHOWN)]).into_owned()
}

impl Flaw {
    /// The status that tells of it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyLines => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::CodingUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What to tell of it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::RequestLine => "The request does not begin with METHOD TARGET HTTP/1.1.",
            Self::Version => "This version of HTTP is not spoken here.",
            Self::TargetTooLong => "The address that is asked for is too long.",
            Self::HeadTooLarge => "The headers are too large.",
            Self::TooManyLines => "There are too many headers.",
            Self::BareLf => "A line of the head ends with LF alone, not with CR LF.",
            Self::BareCr => "A line of the head holds a CR.",
            Self::Nul => "A line of the head holds a NUL.",
            Self::Fold => "A header goes on in the next line.",
            Self::SpaceBeforeColon => "A space stands between a header's name and its colon.",
            Self::Name => "A header has no name, or one that is none.",
            Self::Length => "Content-Length is no number.",
            Self::TwoLengths => "There is more than one Content-Length.",
            Self::LengthAndCoding => "There are both Content-Length and Transfer-Encoding.",
            Self::Coding => "Transfer-Encoding is not chunked, once.",
            Self::CodingUnknown => "Only the transfer coding chunked is known.",
            Self::CodingInOldVersion => "HTTP/1.0 knows no Transfer-Encoding.",
            Self::TimedOut => "The head of the request did not come whole in time.",
        }
    }
}

#[cfg(test)]
mod tests;
