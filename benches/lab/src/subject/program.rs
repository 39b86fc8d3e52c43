//! A program in a namespace, with its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cleanup;
use crate::namespace::Namespace;

/// How long a program may take to be ready; dials over a line with loss take their time.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often its log is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The unit of processor times in `/proc/PID/stat`: `USER_HZ`, 100 on every system that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    /// What goes with it: its files.
    _folder: Option<tempfile::TempDir>,
}

impl Program {
    /// Starts it; the log goes into `folder`.
    pub(crate) fn start(
        space: &Namespace,
        folder: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}-{}.log", arguments.first().map_or("", String::as_str)));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        command.stdout(out.try_clone()?).stderr(out);
        // The settings of whoever runs the lab are not those of what it measures.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("GKD_") {
                command.env_remove(variable);
            }
        }
        let child =
            space.enter(|| command.spawn().with_context(|| format!("cannot start {}", program.display())))?;
        cleanup::remember_program(child.id());
        Ok(Self { name, child, log, _folder: None })
    }

    /// The folder goes with the program.
    pub(crate) fn keep(mut self, folder: tempfile::TempDir) -> Self {
        self._folder = Some(folder);
        self
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log satisfies.
    pub(crate) fn wait_for(&mut self, what: &str, satisfied: impl Fn(&str) -> bool) -> Result<()> {
        self.wait_until(what, |program| satisfied(&program.log()))
    }

    pub(crate) fn wait_until(&mut self, what: &str, satisfied: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !satisfied(self) {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = self.log();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                bail!("{} ended or is not ready ({what}); its log ends with:\n  {tail}", self.name);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far, of the program and of the kernel for it.
    pub(crate) fn cpu(&self) -> Duration {
        // The name, which stands in parentheses, may hold anything; behind it utime and stime are the 12th and 13th.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
        TICK * ticks.sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        cleanup::forget_program(self.pid());
        self.child.wait().ok();
        if let Some(folder) = &self._folder {
            cleanup::forget_folder(folder.path());
        }
    }
}
