//! What a small world is made of, and the worlds that are explored.

use crate::step::{CLIENT, SERVER};

/// What a program does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Opens it.
    Open,
    /// Answers it: the destination was reached.
    Accept,
    /// Answers it: the destination refused.
    Refuse,
    /// Writes the next piece.
    Write,
    /// Writes no more.
    Finish,
    /// Resets it.
    Reset,
    /// Drops it.
    Release,
}

/// The program at one end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// What it does before anything else happens: the opener at the beginning, the other when it accepts.
    pub at_once: &'static [Op],
    /// What it does in this order, each at any time.
    pub later: &'static [Op],
    /// It reads at any time, and not as soon as there is something.
    pub lazy: bool,
}

/// One connection, which the client opens unless `opener` says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The end that opens it.
    pub opener: usize,
    /// The programs at both ends.
    pub scripts: [Script; 2],
}

/// How often what is not a packet may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Tunnels that may die.
    pub deaths: u8,
    /// Tunnels that may be dialled after the beginning.
    pub dials: u8,
    /// Times that time may pass.
    pub waits: u8,
    /// Tunnels that may be retired.
    pub retires: u8,
}

/// What a tunnel's carrier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// It delivers in order and loses nothing until it dies.
    Ordered,
    /// It loses a batch that is sent while another is on the way, and lives on: what no carrier may do. For the test
    /// that shows that the explorer can fail.
    Losing,
}

/// A small world.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name, for the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// How many tunnels are up at the beginning.
    pub tunnels: usize,
    /// The connections.
    pub connections: &'static [Connection],
    /// Steps that come first, always the same, as a replay names them.
    pub prologue: &'static str,
    /// How often what is not a packet may happen.
    pub limits: Limits,
    /// What a program writes at a time, in bytes: a packet of its own.
    pub piece: usize,
    /// What a tunnel pulls at a time, in bytes; 1 is one packet.
    pub room: usize,
    /// How deep the ordinary test goes.
    pub test_depth: usize,
    /// What the carriers do.
    pub carrier: Carrier,
}

/// A piece that travels as one packet: not less than half of the smallest that a packet is cut to (1,400 bytes),
/// so that it is not put together with the next.
const PIECE: usize = 700;

/// A tunnel pulls what is due of control and acknowledgements, and at most one piece.
const PACKET: usize = 600;
/// A tunnel pulls one packet of any kind.
const SINGLE: usize = 1;

const NO: Limits = Limits { deaths: 0, dials: 0, waits: 0, retires: 0 };
const SILENT: Script = Script { at_once: &[Op::Accept], later: &[], lazy: false };

const fn at_once(ops: &'static [Op]) -> Script {
    Script { at_once: ops, later: &[], lazy: false }
}

const fn script(at_once: &'static [Op], later: &'static [Op]) -> Script {
    Script { at_once, later, lazy: false }
}

const fn connection(client: Script, server: Script) -> Connection {
    Connection { opener: CLIENT, scripts: [client, server] }
}

use Op::{Accept, Finish, Open, Refuse, Release, Reset, Write};

/// Every world, the smallest first.
pub const WORLDS: &[Spec] = &[
    Spec {
        name: "one-way",
        about: "three packets and the end one way over two tunnels, of which one dies at any step",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Write, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 9,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "singles",
        about: "one packet and the end one way, every packet pulled by itself, and one tunnel's death",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: SINGLE,
        test_depth: 10,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "both-ways",
        about: "a packet and the end each way, finished at any time, and one tunnel's death",
        tunnels: 2,
        connections: &[connection(script(&[Open, Write], &[Finish]), script(&[Accept, Write], &[Finish]))],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 9,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "reset",
        about: "a Reset from either end, or from both, against data both ways and a tunnel's death",
        tunnels: 2,
        connections: &[connection(
            script(&[Open, Write, Finish], &[Reset]),
            script(&[Accept, Write], &[Reset]),
        )],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 8,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "release",
        about: "programs that drop the connection with data under way, unread, or all read; a lazy reader; a death",
        tunnels: 2,
        connections: &[connection(
            script(&[Open, Write], &[Release]),
            Script { at_once: &[Accept, Write], later: &[Finish, Release], lazy: true },
        )],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 9,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "overtaken",
        about: "two connections, one of them reset before its Connect arrives or after; a death",
        tunnels: 2,
        connections: &[
            connection(script(&[Open, Write], &[Reset]), SILENT),
            connection(at_once(&[Open, Write, Finish]), SILENT),
        ],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 8,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "refused",
        about: "a destination that refuses while data is under way, and a tunnel's death",
        tunnels: 2,
        connections: &[connection(script(&[Open, Write, Write], &[Finish, Release]), script(&[], &[Refuse]))],
        prologue: "",
        limits: Limits { deaths: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 9,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "redial",
        about: "one tunnel, a packet; two dials, two deaths: Hello and Welcome lost, late, or cut",
        tunnels: 1,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 2, dials: 2, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 8,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "all-dead",
        about: "both tunnels die at any step, and one is dialled again",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 2, dials: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 6,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "silence",
        about: "packets that are late by any timer: acknowledgement, suspicion, second copies, trust again, drop",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { waits: 4, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 7,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "acknowledgement",
        about: "counts that are told late, on another tunnel, or lost with the tunnel that they rode on",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 1, waits: 2, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 6,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "retire",
        about: "a Leave from either end against data and a tunnel's death",
        tunnels: 2,
        connections: &[connection(at_once(&[Open, Write, Finish]), SILENT)],
        prologue: "",
        limits: Limits { deaths: 1, retires: 1, ..NO },
        piece: PIECE,
        room: PACKET,
        test_depth: 7,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "credit",
        about: "a window that is used up and granted anew, by a lazy reader, with a tunnel's death in between",
        tunnels: 2,
        connections: &[connection(
            at_once(&[Open, Write, Write, Write, Write, Write, Write, Finish]),
            Script { at_once: &[Accept], later: &[], lazy: true },
        )],
        // Both tunnels hold the last packets that the smallest window, 256 KiB, allows; two packets were told to be
        // there, none was read, and the sender said that it waits.
        prologue: "pc0 ds0 pc1 ds1 ps0 dc0 ps1 dc1 pc0 pc1",
        limits: Limits { deaths: 1, dials: 1, ..NO },
        // Cut into packets, six of them are more than the window.
        piece: 60_000,
        room: 65_536,
        test_depth: 5,
        carrier: Carrier::Ordered,
    },
    Spec {
        name: "everything",
        about: "two connections, one from each end; deaths, redials, silence, a Reset, a Release, a Leave, all at once",
        tunnels: 2,
        connections: &[
            connection(script(&[Open, Write, Write], &[Finish, Reset]), at_once(&[Accept, Write, Finish])),
            Connection {
                opener: SERVER,
                scripts: [script(&[Accept], &[Release]), script(&[Open, Write], &[Write, Finish])],
            },
        ],
        prologue: "",
        limits: Limits { deaths: 2, dials: 2, waits: 2, retires: 1 },
        piece: PIECE,
        room: PACKET,
        test_depth: 4,
        carrier: Carrier::Ordered,
    },
];
