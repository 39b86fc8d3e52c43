//! What RFC 9113 (sections 3 to 8) and RFC 7541 demand of a server, a case for each rule and each way to break it, as tools that
//! judge servers have them. hyper and h2 read the frames; where they do otherwise the case says what they do and why nobody is
//! harmed, and is looked at as strictly, so that a change is noticed.
//!
//! A stream's fault may end the connection as well (RFC 9113, section 5.4.2).

mod compression;
mod connection;
mod framing;
mod messages;
mod streams;
mod usual;

use std::time::Instant;

use crate::frames::{PREFACE, settings};
use crate::ground::Ground;
use crate::peer::{Peer, Seen};

/// How many cases there are in which the server differs from the letter of the RFCs.
const DIFFERING: usize = 32;

/// Why another code than the one that is demanded does no harm.
const GENERAL: &str =
    "the connection ends all the same, with the code for any fault; h2 tells few of them apart";

/// How a connection begins.
#[derive(Clone, Copy)]
enum Begin {
    /// With nothing.
    Bare,
    /// With the preface and SETTINGS, and nothing is waited for.
    Settings(&'static [(u16, u32)]),
    /// As clients do, to the end of the exchange of SETTINGS.
    Usual(&'static [(u16, u32)]),
}

/// One rule, met or broken.
struct Case {
    /// Section and rule.
    name: &'static str,
    begin: Begin,
    /// What is sent. What must come in between is looked at here.
    act: fn(&mut Peer),
    /// What the RFCs let a server do then.
    wanted: Vec<Seen>,
    /// What it does instead, and why that does no harm.
    differs: Option<(Seen, &'static str)>,
}

impl Case {
    fn new(name: &'static str, wanted: impl Into<Vec<Seen>>, act: fn(&mut Peer)) -> Self {
        Self { name, begin: Begin::Usual(&[]), act, wanted: wanted.into(), differs: None }
    }

    fn begins(self, begin: Begin) -> Self {
        Self { begin, ..self }
    }

    fn differs(self, does: Seen, harmless: &'static str) -> Self {
        Self { differs: Some((does, harmless)), ..self }
    }

    /// What is wrong, if anything is.
    fn judge(&self, port: u16) -> Result<(), String> {
        let mut peer = match self.begin {
            Begin::Bare => Peer::bare(port),
            Begin::Settings(own) => {
                let mut peer = Peer::bare(port);
                peer.send([PREFACE, &settings(own)].concat());
                peer
            }
            Begin::Usual(own) => Peer::with(port, own),
        };
        (self.act)(&mut peer);
        let awaited = self.wanted.iter().chain(self.differs.iter().map(|(seen, _)| seen));
        let awaited = awaited.into_iter().find_map(|seen| match seen {
            Seen::Answer(stream, _) => Some(*stream),
            _ => None,
        });
        let seen = peer.see(awaited);
        match self.differs {
            None if self.wanted.contains(&seen) => Ok(()),
            Some((does, _)) if does == seen && !self.wanted.contains(&seen) => Ok(()),
            None => Err(format!("{}: {seen:?} and not one of {:?}", self.name, self.wanted)),
            Some((does, _)) => Err(format!("{}: {seen:?} and no longer {does:?}", self.name)),
        }
    }
}

/// A fault of the connection.
fn connection(code: u32) -> Vec<Seen> {
    vec![Seen::GoAway(code)]
}

/// A fault of a stream.
fn stream(stream: u32, code: u32) -> Vec<Seen> {
    vec![Seen::Reset(stream, code), Seen::GoAway(code)]
}

/// A stream is answered as ever.
fn answered(stream: u32) -> Vec<Seen> {
    vec![Seen::Answer(stream, 200)]
}

#[test]
fn the_front_does_what_rfc_9113_and_rfc_7541_demand() {
    let ground = Ground::with("", "");
    let all = [
        usual::cases(),
        framing::cases(),
        streams::cases(),
        connection::cases(),
        messages::cases(),
        compression::cases(),
    ];
    let all: Vec<Case> = all.into_iter().flatten().collect();
    let (mut wrong, mut names) = (Vec::new(), std::collections::HashSet::new());
    let began = Instant::now();
    for case in &all {
        assert!(names.insert(case.name), "{} stands there twice", case.name);
        // What panics there has its case in front of it.
        println!("{}", case.name);
        wrong.extend(case.judge(ground.port).err());
        ground.is_unharmed(case.name);
    }
    let differing: Vec<_> = all.iter().filter_map(|case| Some((case.name, case.differs?))).collect();
    for (name, (does, harmless)) in &differing {
        println!("differs: {name}: {does:?}: {harmless}");
    }
    println!("{} cases, of which {} differ, in {:?}", all.len(), differing.len(), began.elapsed());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert_eq!(differing.len(), DIFFERING, "tell of it in the count and in the documentation");
}
