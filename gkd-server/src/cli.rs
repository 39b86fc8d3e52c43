//! The command line, and the environment that stands in for it. A flag goes over `GKD_*`, that over the file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use gkd_core::socket::Congestion;
use gkd_proxy::program::Failure;
use gkd_proxy::program::log::{self, Format, Level};
use gkd_proxy::rules::{Bind, parse_range};
use ipnet::IpNet;

use crate::listen::ListenAddress;
use crate::public_name::PublicName;
use crate::users::UserName;

const FILES: &str = "\
Files in DIR:
  server.toml      listen addresses, allowed destinations, limits, time-outs, users with their public keys, rules and
                   limits; the one that init makes explains all of it
  server.key       the server's secret key; nobody but its owner may read it
  first-user.link  the link that a first start without a terminal made; a secret
  control.sock     where a running server answers status and user, to its own user and root

Signals: TERM and INT let live connections end, up to 30 s, and end the server (a second one at once);
HUP reads users with their rules and limits, and allowed destinations, anew, and ends what they do not allow any more (the
user commands do this by themselves); USR1 logs the state.

An option goes over the environment (the GKD_ variables that --help of a command names), and that over server.toml. RUST_LOG filters the log where neither -v nor -q does; NO_COLOR keeps colour out of it.

Exit status: 0 clean, 64 usage, 69 no server to ask (status), 70 a bug, 78 configuration.";

/// gkd makes one TCP connection as fast as many. This is its server.
#[derive(Debug, Parser)]
#[command(name = "gkd-server", version, after_help = FILES)]
pub(crate) struct Cli {
    /// Where the server's files are [default: /etc/gkd for root, else $XDG_CONFIG_HOME/gkd or ~/.config/gkd]
    #[arg(long, global = true, env = "GKD_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve. The first start makes keys and a user, and prints the link that the client takes
    Run(RunOptions),
    /// Make keys and the first user, and print the link; never overwrites anything
    Init(PublicOption),
    /// Add, renew, remove and list users; a running server takes it over at once. A link cannot be printed again: the
    /// server keeps public keys only
    #[command(subcommand)]
    User(UserCommand),
    /// Show the running server: its sessions with every tunnel, what is used of its limits, and which were met
    Status {
        /// Print all of it as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Is the configuration right? Names the line that is not
    Check,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    // No doc comment, for [::] in one would be a link.
    #[arg(
        long,
        env = "GKD_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        help = "Listen here; HOST:9990-9999 takes all of these ports [default: as server.toml says, \
                0.0.0.0:9990 and [::]:9990 at first]"
    )]
    pub(crate) listen: Vec<ListenAddress>,
    #[command(flatten)]
    pub(crate) public: PublicOption,
    /// Destinations that every user may reach, in addition to `allow` in server.toml: 10.0.0.0/8, say
    #[arg(long, env = "GKD_ALLOW", value_name = "CIDR", value_delimiter = ',', value_parser = parse_range)]
    pub(crate) allow: Vec<IpNet>,
    /// Also take the unencrypted carrier, of gkd+plain:// links: for a path that is trusted
    #[arg(long, env = "GKD_PLAIN", value_parser = BoolishValueParser::new())]
    pub(crate) plain: bool,
    /// Congestion control of the tunnels: auto is bbr where the kernel permits it [default: auto]
    #[arg(long, env = "GKD_CONGESTION", value_name = "NAME|system|auto")]
    pub(crate) congestion: Option<Congestion>,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

#[derive(Args, Debug)]
pub(crate) struct PublicOption {
    /// How clients reach this server, for its links [default: a public address of this machine, or its name]
    #[arg(long, env = "GKD_PUBLIC", value_name = "HOST:PORT")]
    pub(crate) public: Option<PublicName>,
}

#[derive(Args, Debug)]
pub(crate) struct LogOptions {
    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The form of the log
    #[arg(long, env = "GKD_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    pub(crate) log_format: Format,
}

impl LogOptions {
    /// Begins to log as they say.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        log::start(self.log_format, Level::of_flags(self.verbose, self.quiet), Level::default())
    }
}

/// Reads the command line, and the environment for what it does not say. `Err` with what clap has to say, which may
/// be help or the version.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Result<Cli, Failure>, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = without_empty_variables(Cli::command()).try_get_matches_from(&arguments);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Ok(cli)),
        Err(error) => match of_variable(&error, &arguments) {
            Some(failure) => Ok(Err(failure)),
            None => Err(error),
        },
    }
}

/// A variable that is there and empty is as good as none.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.to_string_lossy().trim().is_empty())
    };
    command
        .mut_args(|argument| match is_empty(&argument) {
            true => argument.env(None::<&'static str>),
            false => argument,
        })
        .mut_subcommands(without_empty_variables)
}

/// The failure of a value that stands in a variable, for clap blames the option that the variable stands in for.
fn of_variable(error: &clap::Error, arguments: &[OsString]) -> Option<Failure> {
    let Some(ContextValue::String(blamed)) = error.get(ContextKind::InvalidArg) else { return None };
    let option = blamed.split([' ', '=']).next()?;
    let given = |argument: &OsString| argument.to_string_lossy().split('=').next() == Some(option);
    if arguments.iter().any(given) {
        return None;
    }
    let command = Cli::command();
    let mut all =
        command.get_arguments().chain(command.get_subcommands().flat_map(|command| command.get_arguments()));
    let variable = all.find(|argument| argument.get_long() == option.strip_prefix("--"))?.get_env()?;
    let cause = std::error::Error::source(error)?;
    Some(Failure::config(format_args!("{}: {cause}", variable.display())))
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user, and print the link for it
    Add {
        /// How the user is called in the log and here
        name: UserName,
        // No doc comment, for [::] in one would be a link.
        #[arg(
            long,
            value_name = "[ADDR:]PORTS",
            help = "What reverse listeners of the user may bind here: 8080, 0.0.0.0:80,443, [::]:9000-9009; repeatable \
                    [default: 1024-65535 of 127.0.0.1 and [::1]; ADDR left out is 127.0.0.1]"
        )]
        reverse: Vec<Bind>,
        #[command(flatten)]
        public: PublicOption,
    },
    /// Give a user a new key, and print the new link; the old one ends
    Renew {
        /// Which user
        name: UserName,
        #[command(flatten)]
        public: PublicOption,
    },
    /// Remove a user
    Remove {
        /// Which user
        name: UserName,
    },
    /// List users with their public keys, and how many sessions each has where the server runs
    List,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_that_repeat_or_hold_several_are_read() {
        let cli = Cli::try_parse_from([
            "gkd-server",
            "run",
            "--listen",
            "127.0.0.1:1,127.0.0.1:2-3",
            "--listen",
            "[::1]:4",
            "--allow",
            "10.0.0.0/8,::1",
            "--dir",
            "/somewhere",
            "-vv",
        ]);
        let Cli { dir, command: Command::Run(options) } = cli.unwrap() else {
            panic!("it is another command")
        };
        assert_eq!(dir, Some(PathBuf::from("/somewhere")));
        assert_eq!(options.listen.len(), 3);
        assert_eq!(
            options.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "::1/128"]
        );
        assert_eq!(options.log.verbose, 2);
    }

    #[test]
    fn ports_to_be_bound_are_read_as_they_are_written() {
        let cli = Cli::try_parse_from([
            "gkd-server",
            "user",
            "add",
            "ann",
            "--reverse",
            "80,443",
            "--reverse",
            "[::]:9000-9009",
        ]);
        let Command::User(UserCommand::Add { reverse, .. }) = cli.unwrap().command else {
            panic!("it is another command")
        };
        let shown: Vec<_> = reverse.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:80,443", "[::]:9000-9009"]);
        for wrong in ["localhost:80", "0", "9-8", "127.0.0.1"] {
            assert!(Cli::try_parse_from(["gkd-server", "user", "add", "ann", "--reverse", wrong]).is_err());
        }
    }

    #[test]
    fn what_is_no_address_range_or_congestion_control_is_refused() {
        for wrong in [
            ["--listen", "127.0.0.1"],
            ["--listen", "127.0.0.1:70000"],
            ["--listen", "127.0.0.1:9-8"],
            ["--allow", "10.0.0.0/33"],
            ["--allow", "localhost"],
            ["--congestion", "no such"],
            ["--public", "server.example"],
            ["--log-format", "xml"],
        ] {
            assert!(Cli::try_parse_from(["gkd-server", "run"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
