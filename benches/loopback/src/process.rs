//! Programs that are measured: started, waited for, and asked what CPU time and memory they have used.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gkd_load::ports;
use rustix::process::{Pid, Signal};

/// How long a program may take until it does what it is for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A program that runs until it is dropped. What it says goes to a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// It is asked to end, for it has processes of its own to end.
    gently: bool,
}

impl Process {
    pub(crate) fn start(command: Command, folder: &Path) -> Result<Self> {
        Self::start_so(command, folder, false)
    }

    /// The same of a program that has processes of its own, which it ends when it is asked to end.
    pub(crate) fn start_gently(command: Command, folder: &Path) -> Result<Self> {
        Self::start_so(command, folder, true)
    }

    fn start_so(command: Command, folder: &Path, gently: bool) -> Result<Self> {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
        // By way of this program, so that nothing is left when it is killed.
        let mut tied = Command::new(std::env::current_exe()?);
        tied.arg("tied")
            .args(gently.then_some("--gently"))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        let log = folder.join(format!("{}-{}.log", program.display(), ports::free_port()?));
        let (out, error) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let child = tied.stdin(Stdio::null()).stdout(out).stderr(error).env("NO_COLOR", "1").spawn();
        let child = child.with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log, gently })
    }

    /// Waits until its log says this.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> Result<()> {
        let start = Instant::now();
        while !self.log().contains(text) {
            let ended = self.child.try_wait()?.is_some();
            if ended || start.elapsed() > PATIENCE {
                bail!("{} never says {text:?}:\n{}", self.log.display(), self.log());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// User and system time of all its threads, those that have ended too, and of the processes that it has.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let own = self.child.id();
        let mut all = cpu(own)?;
        if self.gently {
            let path = format!("/proc/{own}/task/{own}/children");
            let children = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            for child in children.split_whitespace() {
                all += cpu(child.parse().context("the system tells no process")?)?;
            }
        }
        Ok(all)
    }

    /// Asks it to end, and gives it a while for that.
    fn ask_to_end(&mut self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            thread::sleep(LOOK);
        }
    }

    /// Resident memory, in bytes; each program here has its pages for itself.
    pub(crate) fn memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(kib(&text, "Rss:")? * 1024)
    }
}

/// Becomes another program, which ends when the process does that started this one, or is asked to.
pub(crate) fn become_tied(program: &[OsString], gently: bool) -> Result<()> {
    let (name, arguments) = program.split_first().context("no program")?;
    rustix::process::set_parent_process_death_signal(Some(if gently { Signal::TERM } else { Signal::KILL }))?;
    let error = Command::new(name).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", name.display()))
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.gently {
            self.ask_to_end();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// User and system time of a process, in steps of a clock tick.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("a process has ended")?;
    // The name in parentheses may hold anything; behind it the 12th and 13th fields are the two times (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The number of KiB behind a name, in the format of several files of `/proc`.
pub(crate) fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.with_context(|| format!("the system does not tell {name:?}"))
}

/// Waits until something listens there.
pub(crate) fn wait_for_port(address: SocketAddr) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
        if start.elapsed() > PATIENCE {
            bail!("nothing listens on {address}");
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
