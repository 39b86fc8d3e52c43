"""The programs of a case: server, client and load, each in its namespace, and what the load measured."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from net import ALLOWED, DESTINATION, PORT, SECOND_SERVER, SERVER, Net, run, wait_until

PROXY = "127.0.0.1:1080"

# The stall that a fault causes begins within this time, in seconds: the tools take some of it.
AT_ONCE = 0.3

# How long a program may take for anything that has no time of its own here.
PATIENCE = 30.0


class Program:
    """A process of ours, with a log."""

    def __init__(self, space, log, words, files=None):
        limit = ["prlimit", f"--nofile={files}:{files}"] if files else []
        self.log_path = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", space, *limit, *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "NO_COLOR": "1"})

    def signal(self, number):
        self.process.send_signal(number)

    def log(self):
        return Path(self.log_path).read_text(errors="replace")

    def wait_for_log(self, text):
        wait_until(f"the log of {Path(self.log_path).name} says {text!r}", lambda: text in self.log(), PATIENCE)

    def memory(self, figure="VmHWM"):
        """Memory in bytes: the peak, or `VmRSS` for now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(figure))

    def is_running(self):
        return self.process.poll() is None

    def wait(self, within=PATIENCE):
        return self.process.wait(within)

    def close(self):
        if self.is_running():
            # A frozen one takes no other.
            self.process.kill()
        self.process.wait()


class Setup:
    """A network, a server and, unless it is to come later, a client that is connected."""

    # All that are not closed.
    open = set()

    def __init__(self, bin_folder, rtt_ms=0, mbit=400, paths=1, tunnels=4, client=True, server_files=None,
                 client_files=None, resume=None):
        self.bin = Path(bin_folder)
        self._folder = tempfile.TemporaryDirectory(prefix="gkd-faults-")
        self.folder = Path(self._folder.name)
        self.paths, self.tunnels = paths, tunnels
        self.server_files, self.client_files = server_files, client_files
        # How long sessions live on without a tunnel, where it is not to be what it is by default.
        self.timeouts = f'[timeouts]\nresume = "{resume}s"\n' if resume else "[timeouts]\n"
        self.programs, self.loads = [], []
        Setup.open.add(self)
        self.net = Net(rtt_ms, mbit, paths)
        try:
            self._begin(client)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def _begin(self, client):
        words = [str(self.bin / "gkd-server"), "init", "--dir", str(self.folder / "server")]
        link = self.net.exec(self.net.server, *words, "--public", f"{SERVER}:{PORT}").strip()
        config = self.folder / "server" / "server.toml"
        config.write_text(config.read_text().replace("[timeouts]\n", self.timeouts))
        (self.folder / "client.toml").write_text(self.timeouts)
        self.links = [link, link.replace(f"@{SERVER}:", f"@{SECOND_SERVER}:")][:self.paths]
        self.server = self.start_server()
        self.client = self.start_client() if client else None
        if client:
            self.wait_for_tunnels()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            for program in self.programs:
                tail = program.log().splitlines()[-25:]
                print(f"---- {Path(program.log_path).name}", *tail, sep="\n     ", flush=True)
        self.close()

    def close(self):
        """Ends what it started. Once is enough, and twice does no harm."""
        if self not in Setup.open:
            return
        Setup.open.discard(self)
        for load in self.loads:
            load.close()
        for program in reversed(self.programs):
            program.close()
        self.net.close()
        self._folder.cleanup()

    def _start(self, space, name, words, files=None):
        program = Program(space, self.folder / f"{name}.log", [str(self.bin / words[0]), *words[1:]], files)
        self.programs.append(program)
        return program

    def start_server(self):
        listen = [f"{address}:{PORT}" for address in (SERVER, SECOND_SERVER)][:self.paths]
        words = ["gkd-server", "run", "--dir", str(self.folder / "server"), "--listen", ",".join(listen),
                 "--allow", ALLOWED]
        server = self._start(self.net.server, "server", words, self.server_files)
        listens = lambda: self.net.exec(self.net.server, "ss", "-Htln", f"sport = :{PORT}").strip()
        wait_until("the server listens", listens, PATIENCE)
        return server

    def start_client(self):
        words = ["gkd-client", *self.links, "--config", str(self.folder / "client.toml"),
                 "-n", str(self.tunnels), "-L", f"mixed://{PROXY}"]
        client = self._start(self.net.client, "client", words, self.client_files)
        listens = lambda: self.net.exec(self.net.client, "ss", "-Htln", "sport = :1080").strip()
        wait_until("the client listens", listens, PATIENCE)
        return client

    def wait_for_tunnels(self, within=PATIENCE):
        """Waits until the tunnels of every path are up."""
        for server in (SERVER, SECOND_SERVER)[:self.paths]:
            wait_until(f"{self.tunnels} tunnels to {server} are up",
                       lambda: len(self.net.tunnels(server)) == self.tunnels, within)

    def load(self, **options):
        """Starts a load; see `gkd-load run --help` for the options. Without bytes it goes on until it is ended."""
        self.loads.append(Load(self, options))
        return self.loads[-1]

    def check_load(self, **options):
        """A small load that has to go through whole."""
        options = {"connections": 4, "down": 4 << 20, "up": 4 << 20, "limit": 30, **options}
        figures = self.load(**options).wait()
        if figures.resets or figures.lost or figures.down != options["down"] or figures.up != options["up"]:
            raise AssertionError(f"what comes afterwards does not go through: {figures.values}")
        return figures


class Load:
    """A load that runs."""

    def __init__(self, setup, options):
        self.timeline_path = setup.folder / f"timeline-{time.monotonic_ns()}"
        words = [str(setup.bin / "gkd-load"), "run", "--proxy", PROXY, "--timeline", str(self.timeline_path)]
        for name, value in {"to": DESTINATION, **options}.items():
            words += [f"--{name}", str(value)]
        if "down" not in options:
            words.append("--until-told")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", setup.net.client, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_running(self):
        return self.process.poll() is None

    def end(self, after=0.0):
        """Lets it write for some time, then come to its end; its figures."""
        time.sleep(after)
        self.process.stdin.close()
        self.process.stdin = None
        return self.wait()

    def close(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()

    def wait(self, within=700):
        """Waits until it has ended by itself; its figures."""
        try:
            out, errors = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the load does not end within {within:g} s") from None
        if not out:
            raise AssertionError(f"the load prints no figures: {errors.strip()}")
        return Figures(out, self.timeline_path.read_text())


class Figures:
    """What a load measured. Times are in seconds since 1970, durations in seconds."""

    def __init__(self, line, timeline):
        self.values = {name: int(value) for name, value in (pair.split("=") for pair in line.split())}
        rows = [tuple(int(value) for value in row.split()) for row in timeline.splitlines()]
        self.arrived = [[(at / 1e6, row[way]) for at, *row in rows if row[way]] for way in (0, 1)]

    @property
    def down(self):
        return self.values["down"]

    @property
    def up(self):
        return self.values["up"]

    @property
    def lost(self):
        return self.values["lost_down"] + self.values["lost_up"] + self.values["wrong"]

    @property
    def resets(self):
        return self.values["resets_near"] + self.values["resets_far"]

    def stall(self, since=0.0, until=float("inf")):
        """For each way, the longest time without a byte that was not over at `since` and began before `until`."""
        return [stall(arrived, since, until)[0] for arrived in self.arrived]

    def recovery(self, fault, since=None, until=float("inf"), share=0.5, span=0.1):
        """For each way, how long after `since` (the fault, or when it was lifted) at least this share of the rate
        before the fault flowed again for `span` seconds, once the longest stall was over; None if it never did."""
        return [recovery(arrived, fault, since or fault, until, share, span) for arrived in self.arrived]


def stall(arrived, since, until):
    """The length of the longest stall, and its end."""
    longest = (0.0, since)
    for (before, _), (after, _) in zip(arrived, arrived[1:]):
        if after > since and before < until and after - before > longest[0]:
            longest = (after - before, after)
    return longest


def recovery(arrived, fault, since, until, share, span):
    """The rate before is that of the second before the fault."""
    needed = share * span * sum(count for at, count in arrived if fault - 1 <= at < fault)
    # A stall that comes long after the fault is none of its doing.
    resumed = max(since, stall(arrived, fault, min(until, fault + AT_ONCE))[1])
    after = [(at, count) for at, count in arrived if at >= resumed]
    flowed, first = 0, 0
    for at, count in after:
        flowed += count
        while at - after[first][0] > span:
            flowed -= after[first][1]
            first += 1
        if needed and flowed >= needed:
            return after[first][0] - since
    return None
