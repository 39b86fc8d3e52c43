"""What is common to all cases: how one is told, run, and reported in a line."""

import time
import traceback
from dataclasses import dataclass, field

CASES = []


@dataclass
class Case:
    name: str
    run: object
    quick: bool
    what: str


def case(quick=True):
    """Makes a function a case; its name without underscores, its first line of documentation what it shows."""
    def add(function):
        name = function.__name__.replace("_", "-")
        CASES.append(Case(name, function, quick, function.__doc__.splitlines()[0]))
        return function
    return add


@dataclass
class Report:
    """What a case found: figures of its loads, and remarks."""

    means: str = ""
    down: int = 0
    up: int = 0
    lost: int = 0
    resets: str = "0"
    stall: list = field(default_factory=lambda: [None, None])
    recovery: list = field(default_factory=lambda: [None, None])
    remarks: list = field(default_factory=list)

    def add(self, figures):
        """Counts the bytes of a load; none may be lost."""
        self.down += figures.down
        self.up += figures.up
        self.lost += figures.lost
        assert figures.values["unfinished"] == 0, f"not every socket came to an end: {figures.values}"
        return figures

    def worst(self, stall, recovery=(None, None)):
        """Keeps the longest of several faults."""
        self.stall = [longest(pair) for pair in zip(self.stall, stall)]
        self.recovery = [longest(pair) for pair in zip(self.recovery, recovery)]

    def remark(self, text):
        self.remarks.append(text)


def longest(values):
    return max((value for value in values if value is not None), default=None)


def recovered(recovery, within, what):
    """Behaviour, not speed: that the flow went on at all, within a coarse bound."""
    for way, took in zip(("down", "up"), recovery):
        assert took is not None and took <= within, f"{what}: the flow {way} was not back within {within:g} s: {took}"


def ms(pair):
    return "/".join("-" if value is None else f"{value * 1e3:.0f}" for value in pair)


def mib(count):
    return f"{count / (1 << 20):.0f}"


HEADER = (f"{'case':<22} {'MiB down/up':>13} {'lost':>4} {'resets':>7} {'stall ms':>13} {'recovery ms':>13} "
          f"{'took':>6}  means and remarks")


def attempt(chosen, options):
    """Runs a case and prints its line; whether it behaved."""
    start = time.monotonic()
    report = Report()
    try:
        chosen.run(report, options)
        assert report.lost == 0, f"{report.lost} bytes lost or wrong"
        failure = None
    except Exception as error:  # noqa: BLE001: whatever goes wrong is this case's failure, and the next one runs
        failure = error
    line = (f"{chosen.name:<22} {mib(report.down) + '/' + mib(report.up):>13} {report.lost:>4} {report.resets:>7} "
            f"{ms(report.stall):>13} {ms(report.recovery):>13} {time.monotonic() - start:>5.1f}s  "
            + "; ".join([report.means, *report.remarks]))
    lines = [line.rstrip(" ;")]
    if failure is not None:
        lines.append(f"FAILED {chosen.name}: {failure}")
        if not isinstance(failure, AssertionError):
            lines += traceback.format_exception(failure)
    print("\n".join(lines), flush=True)
    return failure is None
