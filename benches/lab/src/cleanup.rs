//! What is to be undone when the lab ends, however it ends: programs, namespaces, a setting of the machine. What goes
//! in order is undone by its owner; this is for Ctrl-C, and for what an earlier lab that was killed has left.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Which congestion controls a namespace may offer to those without privilege is settled outside of it.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// What every namespace of a lab is called, before its process id.
const PREFIX: &str = "gkd-lab-";

/// Exit status of a program that an interrupt ends, as a shell has it.
const INTERRUPTED: i32 = 130;

#[derive(Debug, Default)]
struct Leftovers {
    programs: Vec<u32>,
    namespaces: Vec<String>,
    folders: Vec<std::path::PathBuf>,
    /// What [`ALLOWED`] was.
    allowed: Option<String>,
}

static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers {
    programs: Vec::new(),
    namespaces: Vec::new(),
    folders: Vec::new(),
    allowed: None,
});

fn leftovers() -> MutexGuard<'static, Leftovers> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a namespace of this lab.
pub(crate) fn namespace_name(suffix: &str) -> String {
    format!("{PREFIX}{}-{suffix}", std::process::id())
}

pub(crate) fn remember_program(pid: u32) {
    leftovers().programs.push(pid);
}

pub(crate) fn forget_program(pid: u32) {
    leftovers().programs.retain(|each| *each != pid);
}

pub(crate) fn remember_namespace(name: &str) {
    leftovers().namespaces.push(name.to_owned());
}

pub(crate) fn remember_folder(folder: &Path) {
    leftovers().folders.push(folder.to_owned());
}

pub(crate) fn forget_folder(folder: &Path) {
    leftovers().folders.retain(|each| each != folder);
}

pub(crate) fn remove_namespace(name: &str) {
    Command::new("ip").args(["netns", "del", name]).output().ok();
    leftovers().namespaces.retain(|each| each != name);
}

/// The lab's hold on the machine; dropping it gives back what was changed.
#[derive(Debug)]
pub(crate) struct Machine;

impl Machine {
    /// Removes what earlier labs left, lets namespaces have every congestion control, and undoes everything upon INT
    /// and TERM.
    pub(crate) fn take() -> Result<Self> {
        remove_stale();
        let available = fs::read_to_string(AVAILABLE).context("cannot read the congestion controls")?;
        let allowed = fs::read_to_string(ALLOWED).context("cannot read the congestion controls allowed")?;
        let missing = available.split_whitespace().any(|name| !allowed.split_whitespace().any(|a| a == name));
        if missing {
            fs::write(ALLOWED, available.trim()).with_context(|| format!("cannot write {ALLOWED}"))?;
            leftovers().allowed = Some(allowed.trim().to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if runtime.block_on(ended()).is_ok() {
                eprintln!("gkd-lab: ended before its time; what it made goes");
                undo();
                std::process::exit(INTERRUPTED);
            }
        })?;
        Ok(Self)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        undo();
    }
}

async fn ended() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

fn undo() {
    // Held until the end of the process or of the lab: nobody adds anything.
    let mut left = leftovers();
    for pid in left.programs.drain(..) {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
    for name in left.namespaces.drain(..) {
        Command::new("ip").args(["netns", "del", &name]).output().ok();
    }
    for folder in left.folders.drain(..) {
        fs::remove_dir_all(folder).ok();
    }
    if let Some(allowed) = left.allowed.take() {
        fs::write(ALLOWED, allowed).ok();
    }
}

/// Removes the namespaces of labs whose process is gone.
fn remove_stale() {
    let Ok(spaces) = fs::read_dir("/run/netns") else { return };
    for space in spaces.flatten() {
        let name = space.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if gone {
            remove_namespace(&name);
        }
    }
}
