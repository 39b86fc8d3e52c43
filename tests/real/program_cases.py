"""Faults of programs and machines: restarts, frozen processes, readers that stop, endings, descriptors, signals."""

import signal
import subprocess
import time

from cases import case, recovered
from net import DESTINATION, OTHER_DESTINATION
from programs import PROXY, Setup

# What one session may hold in all: its receiving window and its send budget, 128 MiB each by default, and the
# program itself.
MEMORY = (128 + 128 + 64) << 20


@case()
def server_restart(report, options):
    """The server crashes and is started again: connections are reset at once, new ones work."""
    with Setup(options.bin, mbit=100) as setup:
        report.means = setup.net.means
        load = setup.load(connections=4, limit=60)
        time.sleep(2)
        setup.server.close()
        time.sleep(1)
        setup.start_server()
        started = time.time()
        figures = load.wait()
        values = figures.values
        report.down, report.up = figures.down, figures.up
        # The destination's sockets were closed by the kernel of a program that is no more.
        report.lost = values["lost_down"] + values["wrong"]
        report.resets = f"{values['resets_near']}+{values['resets_far']}"
        assert values["resets_near"] == 4, f"not all programs were told: {values}"
        took = values["last_reset_near_us"] / 1e6 - started
        report.remark(f"programs reset {took * 1e3:.0f} ms after the new server listened")
        assert took < 10, f"the programs were told after {took:.1f} s"
        report.add(setup.check_load())
        report.remark(f"new ones through {time.time() - started:.1f} s after")
        setup.wait_for_tunnels()


def frozen(report, options, program, seconds):
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = f"{setup.net.means}; SIGSTOP for {seconds} s, recovery since SIGCONT"
        load = setup.load(mbit=50)
        time.sleep(2)
        fault = time.time()
        getattr(setup, program).signal(signal.SIGSTOP)
        time.sleep(seconds)
        getattr(setup, program).signal(signal.SIGCONT)
        thawed = time.time()
        figures = report.add(load.end(after=4))
        assert figures.resets == 0, "a connection was reset by a pause that is shorter than any deadline"
        report.stall = figures.stall(fault)
        report.recovery = figures.recovery(fault, since=thawed)
        recovered(report.recovery, 20, f"a frozen {program}")
        setup.wait_for_tunnels()


@case()
def server_frozen(report, options):
    """The server's process stands still for some seconds."""
    frozen(report, options, "server", 5)


@case(quick=False)
def server_frozen_long(report, options):
    """The server stands still for longer than a silent tunnel is kept, and not so long as a session lives."""
    frozen(report, options, "server", 30)


@case()
def client_frozen(report, options):
    """The client's process stands still for some seconds."""
    frozen(report, options, "client", 5)


@case(quick=False)
def client_frozen_long(report, options):
    """The client stands still for longer than the server keeps a silent tunnel."""
    frozen(report, options, "client", 30)


@case()
def reader_stops(report, options):
    """Programs that stop reading hold up nobody but themselves, and memory has a bound."""
    with Setup(options.bin, mbit=400) as setup:
        seconds, stopped = (4, 4) if options.quick else (20, 10)
        report.means = f"{setup.net.means}; {stopped} readers stopped, 4 go on"
        load = setup.load(connections=4, stopped=stopped)
        figures = report.add(load.end(after=seconds))
        assert figures.resets == 0, "a connection was reset for a reader that stopped"
        report.stall = figures.stall()
        assert max(report.stall) < 3, "those that read on stood still"
        for name in ("client", "server"):
            peak = getattr(setup, name).memory()
            report.remark(f"{name} peak {peak >> 20} MiB")
            assert peak <= MEMORY, f"the {name} took {peak >> 20} MiB"


@case()
def endings(report, options):
    """Either end half-closes or resets; the other sees just that."""
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = setup.net.means
        words = [str(setup.bin / "gkd-load"), "endings", "--proxy", PROXY, "--to", DESTINATION, "--limit", "60"]
        done = subprocess.run(["ip", "netns", "exec", setup.net.client, *words], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            report.remark(line.replace("ending=", "").replace(" result=ok ms=", " ") + (" ms" if "ms=" in line else ""))
        assert done.returncode == 0, f"not every ending was passed on: {done.stderr.strip()}"


def few_descriptors(report, options, which):
    few, many = 40, 120
    with Setup(options.bin, mbit=100, **{f"{which}_files": few}) as setup:
        report.means = f"{setup.net.means}; {many} connections, {few} descriptors at the {which}"
        load = setup.load(connections=many, down=64 << 20, up=64 << 20, limit=60)
        values = load.wait().values
        report.lost = values["lost_down"] + values["lost_up"] + values["wrong"]
        report.down, report.up = values["down"], values["up"]
        report.resets = f"{values['resets_near']}+{values['resets_far']}"
        assert getattr(setup, which).is_running(), f"the {which} ended for want of descriptors"
        assert values["resets_near"] < many, "none was served at all"
        after = time.monotonic()
        report.add(setup.check_load())
        report.remark(f"serves on: 4 connections through {time.monotonic() - after:.1f} s afterwards")
        setup.wait_for_tunnels()


@case()
def server_descriptors(report, options):
    """The server runs out of descriptors, and serves on afterwards."""
    few_descriptors(report, options, "server")


@case()
def client_descriptors(report, options):
    """The client runs out of descriptors, and serves on afterwards."""
    few_descriptors(report, options, "client")


@case()
def down_at_start(report, options):
    """The network is down when the client starts: it says so, keeps trying, and serves who waits."""
    with Setup(options.bin, rtt_ms=50, mbit=100, client=False) as setup:
        report.means = setup.net.means
        setup.net.ip(setup.net.client, "link", "set", "dev", "wan0", "down")
        setup.client = setup.start_client()
        setup.client.wait_for_log("cannot be reached")
        load = setup.load(down=8 << 20, up=8 << 20, limit=60)
        # A program waits for a tunnel for 10 s, then it is refused.
        time.sleep(3 if options.quick else 7)
        assert setup.client.is_running(), "the client gave up"
        setup.net.ip(setup.net.client, "link", "set", "dev", "wan0", "up")
        up = time.time()
        figures = report.add(load.wait())
        assert (figures.down, figures.up, figures.resets) == (8 << 20, 8 << 20, 0), f"not all through: {figures.values}"
        report.recovery = [arrived[0][0] - up for arrived in figures.arrived]
        setup.wait_for_tunnels()


def drains(report, options, program):
    with Setup(options.bin, mbit=100) as setup:
        report.means = f"{setup.net.means}; TERM to the {program}"
        load = setup.load(connections=4)
        time.sleep(1)
        ending = getattr(setup, program)
        ending.signal(signal.SIGTERM)
        time.sleep(0.5)
        late = setup.load(to=OTHER_DESTINATION, down=1 << 20, up=1 << 20, limit=20)
        figures = report.add(load.end(after=2))
        assert figures.resets == 0, "a live connection was reset although it ended within the time to drain"
        refused = late.wait().values
        assert (refused["down"], refused["up"]) == (0, 0), f"a new connection was served: {refused}"
        assert ending.wait(10) == 0, f"the {program} ended with {ending.process.returncode}"
        report.remark("live ones went through, a new one was refused, status 0")


@case()
def client_drains(report, options):
    """TERM to the client: live connections end in order, new ones are refused, then it ends."""
    drains(report, options, "client")


@case()
def server_drains(report, options):
    """TERM to the server: likewise."""
    drains(report, options, "server")


def ends_at_once(report, options, program):
    with Setup(options.bin, mbit=100) as setup:
        report.means = f"{setup.net.means}; TERM twice to the {program}"
        load = setup.load(connections=4, limit=60)
        time.sleep(1)
        ending = getattr(setup, program)
        ending.signal(signal.SIGTERM)
        ending.wait_for_log("a second signal ends at once")
        second = time.time()
        ending.signal(signal.SIGTERM)
        assert ending.wait(5) == 0, f"the {program} ended with {ending.process.returncode}"
        report.remark(f"ended {(time.time() - second) * 1e3:.0f} ms after the second")
        figures = report.add(load.wait())
        values = figures.values
        report.resets = f"{values['resets_near']}+{values['resets_far']}"
        assert (values["resets_near"], values["resets_far"]) == (4, 4), f"not all were reset: {values}"
        last = max(values["last_reset_near_us"], values["last_reset_far_us"]) / 1e6 - second
        report.remark(f"all reset after {last * 1e3:.0f} ms")


@case()
def client_ends_at_once(report, options):
    """A second TERM to the client ends it at once; its connections are reset at both ends."""
    ends_at_once(report, options, "client")


@case()
def server_ends_at_once(report, options):
    """A second TERM to the server: likewise."""
    ends_at_once(report, options, "server")


@case(quick=False)
def drain_deadline(report, options):
    """TERM while a connection has no end: it is reset after 30 s, and the program ends."""
    with Setup(options.bin, mbit=100) as setup:
        report.means = f"{setup.net.means}; TERM to the server"
        load = setup.load(connections=2, limit=90)
        time.sleep(1)
        asked = time.time()
        setup.server.signal(signal.SIGTERM)
        assert setup.server.wait(60) == 0, f"the server ended with {setup.server.process.returncode}"
        took = time.time() - asked
        report.remark(f"ended after {took:.1f} s")
        assert 28 <= took <= 40, f"it took {took:.1f} s"
        values = report.add(load.wait()).values
        report.resets = f"{values['resets_near']}+{values['resets_far']}"
        assert (values["resets_near"], values["resets_far"]) == (2, 2), f"not all were reset: {values}"
