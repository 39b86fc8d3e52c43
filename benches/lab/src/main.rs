//! The lab of gkd: two network namespaces, an emulated line between them, gkd and its rivals on it, and a table of
//! what was measured. Linux only, by root.
//!
//! Everything in a table was measured in one run, interleaved (A B A B …), and is a median; ratios count. It asserts
//! nothing of times; it ends with an error when a byte is wrong, nothing arrives, or the line is not what it is said
//! to be.

#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod cleanup;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod line;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod pump;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod scenario;
#[cfg(target_os = "linux")]
mod subject;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // The one place of the lab: no safe crate makes a TUN device.
mod sys;
#[cfg(target_os = "linux")]
mod traffic;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match cli::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gkd-lab: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("gkd-lab: network namespaces and TUN devices are Linux's: there is no lab on this system");
    std::process::exit(1);
}
