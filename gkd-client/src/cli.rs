//! What may stand on the command line. Values are text here: what they mean, and where else they may come
//! from, is in `config`, so that a value is read alike wherever it stands. No message shows a link.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use gkd_proxy::program::Failure;
use gkd_proxy::program::log::Level;

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Start it with the server's link, and point programs at the proxy:
  gkd-client 'gkd://KEY@server.example:9990'
  curl -x socks5h://127.0.0.1:1080 https://example.com

A LINK is the line that gkd-server prints at its first start, upon init and upon user add; it is a secret. It may \
also stand in GKD_LINK or in a file (--link-file), so that it is not in the process list.

A LISTENER is one of
  mixed://[BIND:]PORT               SOCKS5 and HTTP proxy on one port
  socks5://[USER:PASS@][BIND:]PORT  SOCKS5
  http://[USER:PASS@][BIND:]PORT    HTTP proxy
  tcp://[BIND:]PORT:HOST:PORT       fixed TCP forward; PORT may be a range
  tcp://[BIND:]PORT:unix:PATH       the same to a Unix socket; one of the server's, where its rules name it
  udp://[BIND:]PORT:HOST:PORT       fixed UDP forward
  ws://[BIND:]PORT:HOST:PORT        takes WebSocket, leads to plain TCP (or to unix:PATH)
  tcp://[BIND:]PORT:ws://HOST:PORT/PATH  takes plain TCP, leads to a WebSocket server; wss:// too
with ?strict=1 (answer when the far end has connected) or, for tcp and ws, ?proxy=v2. BIND is 127.0.0.1 by default. \
For ws there are also ?text=1 (send text, not binary), ?ping=SECONDS (when it is silent; 30), ?path=/PATH and \
?origin=https://HOST (whose pages may come); behind a WebSocket server's address #text=1, #ping=SECONDS and #protocol=NAME.

With -R there are also services, which the server's own web front answers for by name, as the user's rules there allow:
  http://NAME:HOST:PORT             a web server here
  h2c://NAME:HOST:PORT              one that is spoken to in HTTP/2 without TLS, for gRPC
  http://NAME:/FOLDER               the files of a folder here
Several targets of one NAME, of this client or of others, share its requests; with ?weight=N (1 to 1000) one gets more of them.

An option goes over the environment (GKD_LINK, GKD_LINK_FILE, GKD_TUNNELS, GKD_LOCAL, GKD_REMOTE, GKD_BIND, \
GKD_VIA, GKD_CONGESTION, GKD_PLAIN, GKD_CONFIG, GKD_LOG_FORMAT; several values with blanks between), and that over the \
file: --config, else client.toml in $XDG_CONFIG_HOME/gkd (~/.config/gkd) or /etc/gkd. The file says the same with the \
same words (links, link_file, tunnels, local, remote, bind, via, congestion, plain, log, log_format), and what only it can: time-outs, \
a table [timeouts] with dial, handshake, half_closed, udp_idle, resume and silent, each a time such as \"10s\"; and names for \
listeners, tables [[listener]] with name and local or remote; and services, tables [[service]] with name, to (such as \
\"http://127.0.0.1:3000\" or \"/srv/files\") and weight.

RUST_LOG filters the log where neither -v nor -q does; NO_COLOR keeps colour out of it.

TERM and INT let connections end, for 30 s at the most; a second one ends at once. HUP reads the file anew: listeners \
and services are opened and closed as it says, those that stay and all connections go on; all else takes a restart. USR1 logs the \
state, and status shows it.

Exit status: 0 clean, 64 the command line is wrong, 78 a file, the environment or a port is, 77 refused by the \
server, 69 not reached (check, bench and status), 70 a bug.";

/// One TCP connection as fast as many: a proxy whose connections run over N tunnels to a gkd server.
#[derive(Debug, Parser)]
#[command(name = "gkd-client", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) listeners: Listeners,
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Which server, and how it is reached.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Reach {
    /// The link that the server printed, gkd://KEY@HOST:PORT; several are several paths to one server
    #[arg(value_name = "LINK")]
    pub(crate) links: Vec<String>,
    /// Tunnels per path: 1 to 64, or auto: 4 at first, and more as long as they bring something [default: 4]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tunnels: Option<String>,
    /// Local address or interface for the tunnels; repeatable: one path each
    #[arg(long, value_name = "ADDR|IFACE")]
    pub(crate) bind: Vec<String>,
    /// Congestion control of the tunnels: auto (bbr where the kernel permits), system, or a name [default: auto]
    #[arg(long, value_name = "NAME|system|auto")]
    pub(crate) congestion: Option<String>,
    /// No encryption: for a path that is trusted, and for measuring; the server must run with --plain too
    #[arg(long)]
    pub(crate) plain: bool,
    /// Read the configuration from here (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<String>,
    /// Read links from here, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) link_file: Option<String>,
    /// Reach the server through an HTTP proxy, `http://[USER:PASSWORD@]HOST:PORT`, or through the one that the environment
    /// names in https_proxy or all_proxy, and no_proxy does not rule out
    #[arg(long, value_name = "URL|env")]
    pub(crate) via: Option<String>,
}

/// What listens where.
#[derive(Debug, Default, Args)]
pub(crate) struct Listeners {
    /// A listener here, dialled from the server's side; repeatable [default without -L and -R: mixed://127.0.0.1:1080]
    #[arg(short = 'L', long = "local", value_name = "LISTENER")]
    pub(crate) local: Vec<String>,
    /// A listener on the server, dialled from here: tcp, udp or ws; or a service that it answers for: http or h2c;
    /// repeatable. The server binds and takes what it permits this user
    #[arg(short = 'R', long = "remote", value_name = "LISTENER")]
    pub(crate) remote: Vec<String>,
}

/// What is logged.
#[derive(Debug, Default, Args)]
pub(crate) struct Log {
    /// Log more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// How log lines look
    #[arg(long, value_name = "text|json", global = true)]
    pub(crate) log_format: Option<String>,
}

impl Log {
    /// How much is to be logged, where that was said.
    pub(crate) fn level(&self) -> Option<Level> {
        Level::of_flags(self.verbose, self.quiet)
    }
}

/// Everything but running.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what gkd does: a server, a client and a bad network in one process
    Demo(Demo),
    /// Look whether the server can be reached, has the right key and lets the tunnels in; without a link,
    /// whether a configuration is right
    Check(Reach),
    /// Measure the way to the server, which has to permit it: throughput, round trips, and round trips under load, over
    /// 1 tunnel per path and over N, in turns
    Bench(Bench),
    /// Show the running client: every tunnel with its round trip, rate and what is in flight, listeners, connections
    Status(Status),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What `bench` may be told.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// How long each measurement takes, in seconds; there are twelve
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub(crate) seconds: u64,
    /// Print the figures as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `status` may be told.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print all of it as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Which client, where several run
    #[arg(long, value_name = "N")]
    pub(crate) pid: Option<u32>,
}

/// What `demo` may be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Tunnels of the second and third transfer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) tunnels: u16,
    /// Round trip of the emulated line, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=2_000))]
    pub(crate) rtt: u64,
    /// What one TCP connection gets on it in each direction, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) cap: u64,
    /// Bytes of the transfer over one tunnel, those over N move N times as many [default: 8 seconds' worth]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000_000))]
    pub(crate) bytes: Option<u64>,
}

/// Options that concern every command.
const GLOBAL: [&str; 3] = ["verbose", "quiet", "log_format"];

/// Reads the command line. `Err` with what clap has to say, which may be help or the version.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Result<Cli, Failure>, clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    if let Some((command, _)) = matches.subcommand()
        && let Some(option) = misplaced(&matches)
    {
        let message = format!(
            "{option} stands in front of {command}: what {command} takes stands behind it, see gkd-client {command} \
             --help"
        );
        return Ok(Err(Failure::usage(message)));
    }
    let cli = Cli::from_arg_matches(&matches)?;
    let no_link = cli.reach.links.iter().any(|link| !link.contains("://"));
    Ok(if no_link { Err(no_command()) } else { Ok(cli) })
}

/// A word that is no link by far: a command, perhaps. It is not shown, for it may be a link's key.
fn no_command() -> Failure {
    Failure::usage(
        "LINK: this is not a gkd link, which begins with gkd:// and was printed by the server, and no command, \
         which stands in front of all else: see --help",
    )
}

/// Whether the message has a link in it, which bears a key: clap quotes what it does not know.
pub(crate) fn shows_link(error: &clap::Error) -> bool {
    let message = error.to_string().to_ascii_lowercase();
    ["gkd://", "gkd+plain://", "gkd+ws://", "gkd+wss://"].iter().any(|scheme| message.contains(scheme))
}

/// An option of running that stands in front of a command, which would pass over it.
fn misplaced(matches: &ArgMatches) -> Option<String> {
    let ours = matches.ids().filter(|id| {
        !GLOBAL.contains(&id.as_str()) && matches.value_source(id.as_str()) == Some(ValueSource::CommandLine)
    });
    // Groups have ids too; an option is what the command knows by that id.
    let command = Cli::command();
    ours.filter_map(|id| command.get_arguments().find(|argument| argument.get_id() == id))
        .map(|argument| argument.get_long().map_or_else(|| "LINK".to_owned(), |long| format!("--{long}")))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Result<Cli, Failure>, clap::Error> {
        parse(std::iter::once("gkd-client").chain(line.split_whitespace()).map(Into::into))
    }

    #[test]
    fn clap_finds_no_fault_in_it() {
        Cli::command().debug_assert();
    }

    #[test]
    fn links_and_options_mix() {
        let cli =
            parsed("gkd://a -n 8 -L mixed://1080 -L tcp://1:h:2 gkd://b --bind eth0 -vv").unwrap().unwrap();
        assert_eq!(cli.reach.links, ["gkd://a", "gkd://b"]);
        assert_eq!(cli.reach.tunnels.as_deref(), Some("8"));
        assert_eq!(cli.listeners.local, ["mixed://1080", "tcp://1:h:2"]);
        assert_eq!(cli.log.verbose, 2);
        assert!(cli.command.is_none());
    }

    #[test]
    fn an_option_of_running_in_front_of_a_command_is_told() {
        let failure = parsed("-n 8 check gkd://a").unwrap().unwrap_err();
        assert!(failure.message.starts_with("--tunnels stands in front of check"), "{failure}");
        assert!(parsed("-v check gkd://a -n 8").unwrap().is_ok());
        assert!(parsed("status --json --pid 7 -v").unwrap().is_ok());
        assert!(parsed("demo -v --tunnels 8 --rtt 20 --cap 50 --bytes 1000").unwrap().is_ok());
    }

    #[test]
    fn a_word_that_is_neither_link_nor_command_is_told_as_that() {
        for (line, part) in [
            ("chek gkd://a", "LINK: this is not a gkd link"),
            ("gkd://a check", "no command, which stands in front of all else"),
        ] {
            let failure = parsed(line).unwrap().unwrap_err();
            assert!(failure.message.contains(part), "{failure}");
            assert!(!failure.message.contains("chek"), "{failure}");
        }
    }

    #[test]
    fn a_link_in_the_wrong_place_is_not_shown() {
        let error = parsed("demo gkd://KEY@h:1").unwrap_err();
        assert!(shows_link(&error));
        assert!(!shows_link(&parsed("--nonsense").unwrap_err()));
    }

    #[test]
    fn what_is_out_of_range_is_told() {
        for line in [
            "demo --tunnels 1",
            "demo --tunnels 65",
            "demo --cap 0",
            "demo --bytes 0",
            "-q -v",
            "--nonsense",
            "bench --seconds 0 gkd://a",
            "bench --seconds 31 gkd://a",
            "bench --local 1080 gkd://a",
            "status gkd://a",
            "status --pid x",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
