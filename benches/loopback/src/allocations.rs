//! How often memory is allocated while bytes flow, counted by a program of its own: see `bin/allocations.rs`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::figures::{Reach, Report, Row, Spread};

/// The program, beside this one.
pub(crate) const PROGRAM: &str = "gkd-allocations";

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    bench.say("allocations");
    let program = bench.programs.own.with_file_name(PROGRAM);
    let mut command = Command::new(&program);
    if bench.quick {
        command.arg("--quick");
    }
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{PROGRAM}: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout)?.lines() {
        let (name, count) = line.rsplit_once('=').with_context(|| format!("{PROGRAM} says {line:?}"))?;
        let measured = Spread::of([count.parse::<f64>()?]);
        let row = Row::new(format!("allocations for each 16 KiB: {name}"), "", measured);
        report.rows.push(row.reach(Some(Reach::AtMost(0.1))));
    }
    Ok(())
}
