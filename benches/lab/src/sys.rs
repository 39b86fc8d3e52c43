//! TUN devices and the scheduling of the line's threads, and with them the only `unsafe` of the lab: the system calls
//! for both have no safe form.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::io::{self, Errno};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `IFF_TUN | IFF_NO_PI` of `linux/if_tun.h`: IP packets, and nothing before them. No `IFF_VNET_HDR` and no
/// `TUNSETOFFLOAD`: the kernel hands over what would go on a wire, at most an MTU each.
const FLAGS: u16 = 0x0001 | 0x1000;

/// `TUNSETIFF` of `linux/if_tun.h`.
const TUNSETIFF: Opcode = opcode::write::<core::ffi::c_int>(b'T', 202);

/// The least priority of a real-time thread: it is enough to go before all that have none.
const PRIORITY: i32 = 1;

/// The longest packet: the devices' MTU is 1,500.
pub(crate) const MTU: usize = 1500;

/// `struct ifreq` of `linux/if.h`: 16 bytes of name, then a union of 24 bytes that begins with the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// A device in the network namespace of the thread that made it; it goes with the last handle.
#[derive(Debug)]
pub(crate) struct Tun(File);

impl Tun {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun: load the module tun, or give the container the device")?;
        let mut request = InterfaceRequest { name: [0; 16], flags: FLAGS, rest: [0; 22] };
        anyhow::ensure!(name.len() < request.name.len(), "{name:?} is too long for a device's name");
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: TUNSETIFF takes a pointer to a `struct ifreq`, which the kernel reads and writes whole (40 bytes);
        // `InterfaceRequest` has its layout, is borrowed mutably for the length of the call, and any bytes are a
        // valid one.
        let made = unsafe { ioctl(&file, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) };
        made.with_context(|| format!("cannot make the TUN device {name}: this takes root (CAP_NET_ADMIN)"))?;
        Ok(Self(file))
    }

    /// The next packet, or None if there is none now.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        match io::read(&self.0, buffer) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a packet to the kernel behind the device. False when it did not take it: the device is down.
    pub(crate) fn write(&self, packet: &[u8]) -> bool {
        io::write(&self.0, packet).is_ok()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets the calling thread run whenever it has something to do, before all programs that are not real-time ones. False
/// without the privilege.
pub(crate) fn run_in_time() -> bool {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread. The kernel reads one `sched_param` during the call, which is borrowed for it.
    let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    failed == 0
}
