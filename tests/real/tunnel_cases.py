"""Faults of tunnels and paths: killed, silent, dead together, dead for too long, another address."""

import time

from cases import case, longest, recovered
from net import CLIENT, PORT, SECOND_SERVER, SERVER, wait_until
from programs import Setup

# Half of what the line carries, so that what is measured is the fault and not the line's queue.
CALM = {"mbit": 50}

# By then any flow is back whose path works: a silent tunnel is given up after 20 s, and dialled again every 2 s.
AT_THE_LATEST = 25


@case()
def tunnel_killed(report, options):
    """One tunnel after the other is reset in the middle of packets, at either end by turns."""
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = setup.net.means
        kills = 4 if options.quick else 16
        load = setup.load(**CALM)
        faults = []
        time.sleep(2)
        for turn in range(kills):
            ports = setup.net.tunnels()
            assert ports, "no tunnel is up"
            end = ("server", "client")[turn % 2]
            faults.append((time.time(), end))
            setup.net.kill([ports[turn % len(ports)]], at=end)
            time.sleep(1.5)
        figures = report.add(load.end())
        assert figures.resets == 0, "a connection was reset although tunnels were left"
        each = {"server": [], "client": []}
        for fault, end in faults:
            stall, recovery = figures.stall(fault, fault + 1.4), figures.recovery(fault, until=fault + 1.4)
            report.worst(stall, recovery)
            recovered(recovery, AT_THE_LATEST, "a killed tunnel")
            each[end].append(longest(stall))
        for end, stalls in each.items():
            stalls = sorted(stalls)
            report.remark(f"{len(stalls)} killed at the {end}, stall median {stalls[len(stalls) // 2] * 1e3:.0f} ms, "
                          f"longest {stalls[-1] * 1e3:.0f} ms")
        report.remark(setup.net.line_figures())
        setup.wait_for_tunnels()


def silent(report, options, ways):
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = setup.net.means
        load = setup.load(**CALM)
        time.sleep(2)
        port = setup.net.tunnels()[0]
        fault = time.time()
        setup.net.drop_tunnel(port, ways)
        if not options.quick:
            took = wait_until("the silent tunnel has been replaced",
                              lambda: len(set(setup.net.tunnels()) - {port}) == setup.tunnels, within=30)
            report.remark(f"replaced after {took:.1f} s")
        figures = report.add(load.end(after=4))
        assert figures.resets == 0, "a connection was reset although tunnels were left"
        report.worst(figures.stall(fault), figures.recovery(fault))
        recovered(report.recovery, AT_THE_LATEST, "a silent tunnel")
        report.remark(setup.net.line_figures())


@case()
def tunnel_silent(report, options):
    """One tunnel goes silent in both directions: a black hole."""
    silent(report, options, ("down", "up"))


@case(quick=False)
def tunnel_silent_down(report, options):
    """One tunnel goes silent from the server to the client; what the client sends arrives."""
    silent(report, options, ("down",))


@case(quick=False)
def tunnel_silent_up(report, options):
    """One tunnel goes silent from the client to the server; what the server sends arrives."""
    silent(report, options, ("up",))


def all_dead(report, options, dead_for, kill):
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = setup.net.means
        load = setup.load(connections=4, **CALM)
        time.sleep(2)
        ports = setup.net.tunnels()
        fault = time.time()
        setup.net.drop()
        if kill:
            setup.net.kill(ports, at="client")
            setup.net.kill(ports, at="server")
        time.sleep(max(0, fault + dead_for - time.time()))
        setup.net.lift()
        lifted = time.time()
        figures = report.add(load.end(after=5))
        assert figures.resets == 0, "a connection was reset within the time in which it may resume"
        report.stall = figures.stall(fault)
        report.recovery = figures.recovery(fault, since=lifted)
        recovered(report.recovery, AT_THE_LATEST, "all tunnels dead")
        report.remark(f"dead for {dead_for} s; recovery since it was over")
        setup.wait_for_tunnels()


@case()
def all_killed(report, options):
    """Every tunnel is reset, and none comes up for ten seconds (four in the quick run)."""
    all_dead(report, options, 4 if options.quick else 10, kill=True)


@case(quick=False)
def all_silent(report, options):
    """Nothing passes for ten seconds."""
    all_dead(report, options, 10, kill=False)


@case()
def all_dead_too_long(report, options):
    """No tunnel for longer than sessions live: connections are reset on both ends, at the deadline."""
    # In full the default, of which no file says anything.
    resume, said = (4, 4) if options.quick else (60, None)
    with Setup(options.bin, rtt_ms=50, mbit=100, resume=said) as setup:
        report.means = f"{setup.net.means}; sessions live {resume} s"
        load = setup.load(connections=4, limit=resume + 60)
        time.sleep(2)
        fault = time.time()
        setup.net.drop()
        ports = setup.net.tunnels()
        setup.net.kill(ports, at="client")
        setup.net.kill(ports, at="server")
        # They end by themselves, with nothing between the two.
        figures = report.add(load.wait())
        values = figures.values
        report.resets = f"{values['resets_near']}+{values['resets_far']}"
        assert (values["resets_near"], values["resets_far"]) == (4, 4), f"not all were reset: {values}"
        after = [values[f"last_reset_{end}_us"] / 1e6 - fault for end in ("near", "far")]
        for end, took in zip(("programs", "destination"), after):
            report.remark(f"{end} reset after {took:.1f} s")
            assert resume - 2 <= took <= resume + 10, f"the {end}'s end was reset after {took:.1f} s"
        setup.net.lift()
        lifted = time.time()
        report.add(setup.check_load())
        report.remark(f"new ones through {time.time() - lifted:.1f} s after the fault was over")


def other_address(report, options, **load):
    with Setup(options.bin, rtt_ms=50, mbit=100) as setup:
        report.means = setup.net.means
        load = setup.load(**load, **CALM)
        time.sleep(2)
        fault = time.time()
        setup.net.ip(setup.net.client, "addr", "del", f"{CLIENT}/24", "dev", "wan0")
        setup.net.ip(setup.net.client, "addr", "add", "10.77.1.77/24", "dev", "wan0")
        figures = report.add(load.end(after=8 if options.quick else 30))
        assert figures.resets == 0, "a connection was reset although the server could be reached again at once"
        report.worst(figures.stall(fault), figures.recovery(fault))
        recovered([took for took, moved in zip(report.recovery, (figures.down, figures.up)) if moved],
                  AT_THE_LATEST, "an address change")
        setup.wait_for_tunnels()


@case()
def address_change(report, options):
    """The client's address goes and another comes, as on a laptop that changes networks."""
    other_address(report, options)


@case(quick=False)
def address_change_reading(report, options):
    """The same while the client's programs only read, so that it has nothing on the way that it would miss."""
    other_address(report, options, up=0)


@case()
def one_path_of_two(report, options):
    """One path of two goes silent and comes back; running connections lose nothing and use it again."""
    with Setup(options.bin, mbit=100, paths=2, tunnels=2) as setup:
        report.means = f"two paths, {setup.net.means} each"
        dead_for = 4 if options.quick else 30
        load = setup.load(limit=300)
        time.sleep(2)
        fault = time.time()
        setup.net.drop()
        time.sleep(dead_for)
        assert setup.net.tunnels(SECOND_SERVER), "the path that works has no tunnel"
        setup.net.lift()
        lifted, before = time.monotonic(), setup.net.received("wan0")
        used = lambda: setup.net.received("wan0") - before > 4 << 20
        wait_until("the path that came back is used again", used, within=60)
        report.remark(f"dead for {dead_for} s, used again {time.monotonic() - lifted:.1f} s after it came back")
        figures = report.add(load.end(after=1))
        assert figures.resets == 0, "a connection was reset although one path worked"
        report.stall = figures.stall(fault)
        # Half of the rate is what is left.
        report.recovery = figures.recovery(fault, share=0.3)
        recovered(report.recovery, AT_THE_LATEST, "one path of two")
        setup.wait_for_tunnels()


@case(quick=False)
def two_gigabytes(report, options):
    """2 GiB each way while a tunnel is killed every second, and all are for ten seconds."""
    size = 2 << 30
    with Setup(options.bin, mbit=400) as setup:
        report.means = setup.net.means
        load = setup.load(connections=4, down=size, up=size, limit=600)
        start, turn, stood, all_at = time.time(), 0, None, 15
        while load.is_running():
            time.sleep(1)
            ports = setup.net.tunnels()
            if stood is None and time.time() - start > all_at:
                stood = time.time()
                setup.net.drop()
                setup.net.kill(ports)
                setup.net.kill(ports, at="server")
                time.sleep(10)
                setup.net.lift()
                lifted = time.time()
            elif ports:
                setup.net.kill([ports[turn % len(ports)]], at=("client", "server")[turn % 2])
                turn += 1
        figures = report.add(load.wait())
        assert (figures.down, figures.up, figures.resets) == (size, size, 0), f"not all through: {figures.values}"
        assert stood is not None, "it was over before all tunnels were killed"
        report.stall = figures.stall()
        report.recovery = figures.recovery(stood, since=lifted)
        kills = [figures.stall(0, stood - 0.5), figures.stall(lifted + 5)]
        report.remark(f"{turn} single kills, longest stall of these {max(max(pair) for pair in kills) * 1e3:.0f} ms; "
                      f"{figures.values['elapsed_ms'] / 1e3:.0f} s in all; recovery since all could be dialled again")
