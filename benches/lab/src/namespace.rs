//! A network namespace of the lab's own. What is made within [`Namespace::enter`], sockets, devices and programs,
//! belongs to it and may be used from anywhere.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cleanup;

/// Dropping it removes it; what still runs in it keeps it alive unseen.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one, with its loopback device up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        cleanup::remember_namespace(name);
        run("ip", &["netns", "add", name])?;
        let file = File::open(format!("/run/netns/{name}"))
            .with_context(|| format!("cannot open the namespace {name}"))?;
        let namespace = Self { name: name.to_owned(), file };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs something in a thread that is in the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter the namespace {}", self.name))?;
            work()
        };
        let joined = thread::scope(|scope| scope.spawn(inside).join());
        joined.map_err(|_| anyhow!("a thread in the namespace {} panicked", self.name))?
    }

    /// `ip` with these arguments, within.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String> {
        run("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// A command within, to its end.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run("ip", &[&["netns", "exec", &self.name, program], arguments].concat())
    }

    /// Sets a setting of the network: `ipv4/tcp_rmem`, say.
    pub(crate) fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        self.enter(|| fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {path}")))
    }

    /// Packets that a device had no room for.
    pub(crate) fn device_drops(&self, device: &str) -> Result<u64> {
        // A line has receive counters first; transmit begins with the ninth, its drops are the fourth of those.
        const TRANSMIT_DROPS: usize = 8 + 3;
        let text = self.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
        let drops = line.and_then(|line| line.split_whitespace().nth(TRANSMIT_DROPS)?.parse().ok());
        drops.with_context(|| format!("the kernel does not tell of the device {device}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove_namespace(&self.name);
    }
}

/// Runs a command to its end; what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}: install it (iproute2 has ip and ss)"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.lines().next().unwrap_or("no message"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
