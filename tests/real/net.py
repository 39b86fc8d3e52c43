"""Two network namespaces of the run's own, `client` and `server`, and what lies between them.

    link wan0  10.77.1.1 - 10.77.1.2   tunnels run here, and faults happen here
    link wan1  10.77.3.1 - 10.77.3.2   a second path, where a case asks for one
    link dest0 10.77.2.1 - 10.77.2.2   from the server to the destination, which is with the programs; never at fault

Nothing outside of the two is touched, and both go with the run.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

PORT = 9990
CLIENT, SERVER = "10.77.1.1", "10.77.1.2"
SECOND_CLIENT, SECOND_SERVER = "10.77.3.1", "10.77.3.2"
DESTINATION = "10.77.2.1:9000"
# For a load beside another.
OTHER_DESTINATION = "10.77.2.1:9001"
ALLOWED = "10.77.2.0/24"


def run(*words, check=True):
    """Runs a command to its end; what it printed."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        # Some tools tell all their options behind it.
        told = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise RuntimeError(f"{' '.join(words)}: {told[0]}")
    return done.stdout


class Net:
    """The namespaces and links of one case."""

    _count = 0

    def __init__(self, rtt_ms=0, mbit=400, paths=1):
        Net._count += 1
        name = f"gkd-{os.getpid()}-{Net._count}"
        self.client, self.server = f"{name}-c", f"{name}-s"
        self.rtt_ms, self.mbit = rtt_ms, mbit
        self._line = None
        self._holes = 0
        try:
            for space in (self.client, self.server):
                run("ip", "netns", "add", space)
                self.ip(space, "link", "set", "lo", "up")
                # What a fault left on its way must not be told of by the kernel's own guess from before.
                self.exec(space, "sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
                self.nft(space, "add table inet faults")
                self.nft(space, "add chain inet faults in { type filter hook input priority 0; }")
            if rtt_ms:
                self._add_line("wan0", CLIENT, SERVER)
            else:
                self._add_veth("wan0", CLIENT, SERVER, mbit)
            if paths > 1:
                self._add_veth("wan1", SECOND_CLIENT, SECOND_SERVER, mbit)
            self._add_veth("dest0", "10.77.2.1", "10.77.2.2", None)
        except BaseException:
            self.close()
            raise

    @property
    def means(self):
        """How the network between the ends is made, in words."""
        if self.rtt_ms:
            return f"TUN line, {self.rtt_ms} ms, {self.mbit} Mbit/s"
        return f"veth, {self.mbit} Mbit/s"

    def line_figures(self):
        """What the line has to say of itself, in words."""
        self._line.stdin.write("\n")
        self._line.stdin.flush()
        dropped, late = self._line.stdout.readline().split()
        return f"line: {dropped} packets dropped, late by {late} ms at the most"

    def close(self):
        if self._line:
            self._line.stdin.close()
            self._line.wait(5)
        for space in (self.client, self.server):
            run("ip", "netns", "del", space, check=False)

    # ---- commands within ----

    def exec(self, space, *words, check=True):
        return run("ip", "netns", "exec", space, *words, check=check)

    def ip(self, space, *words):
        return run("ip", "-n", space, *words)

    def nft(self, space, rule):
        return self.exec(space, "nft", rule)

    # ---- links ----

    def _address(self, space, device, address):
        self.ip(space, "addr", "add", f"{address}/24", "dev", device)
        self.ip(space, "link", "set", "dev", device, "up")

    def _add_veth(self, device, near, far, mbit):
        self.ip(self.client, "link", "add", device, "type", "veth", "peer", "name", device, "netns", self.server)
        for space, address in ((self.client, near), (self.server, far)):
            self._address(space, device, address)
            if mbit:
                shape = f"tbf rate {mbit}mbit burst 256kb latency 50ms".split()
                self.exec(space, "tc", "qdisc", "add", "dev", device, "root", *shape)

    def _add_line(self, device, near, far):
        far_device = f"{device}far"
        # Ahead of what it serves: a line does not wait until the programs at its ends have slept.
        words = ["nice", "-n", "-10", "ip", "netns", "exec", self.client, sys.executable]
        self._line = subprocess.Popen(
            [*words, str(Path(__file__).with_name("line.py")), device, far_device, str(self.rtt_ms / 2), str(self.mbit)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line.stdout.readline() != "ready\n":
            raise RuntimeError("the line does not start")
        self.ip(self.client, "link", "set", "dev", far_device, "netns", self.server)
        self.ip(self.server, "link", "set", "dev", far_device, "name", device)
        for space, address in ((self.client, near), (self.server, far)):
            self._address(space, device, address)
            self.ip(space, "link", "set", "dev", device, "txqueuelen", "1000")

    # ---- tunnels ----

    def tunnels(self, server=None):
        """The client's ports of the tunnels that its kernel holds established."""
        peer = f"{server or SERVER}:{PORT}"
        lines = self.exec(self.client, "ss", "-Htn", "state", "established", f"dst {peer}").splitlines()
        return sorted(int(line.split()[2].rsplit(":", 1)[1]) for line in lines)

    def kill(self, ports, at="client"):
        """Destroys tunnels at one end; its kernel resets the other."""
        space = self.client if at == "client" else self.server
        side = "sport" if at == "client" else "dport"
        chosen = " or ".join(f"{side} = :{port}" for port in ports)
        self.exec(space, "ss", "-Ktn", f"( {chosen} )")

    def drop(self, match_client="", match_server="", ways=("down", "up")):
        """Drops what matches where it arrives, so that its sender hears nothing. By default all of wan0."""
        for way, space, match in (("down", self.client, match_client), ("up", self.server, match_server)):
            if way in ways:
                self.nft(space, f"add rule inet faults in {match or 'iifname wan0'} drop")

    def drop_tunnel(self, port, ways=("down", "up")):
        self.drop(f"tcp dport {port} tcp sport {PORT}", f"tcp sport {port} tcp dport {PORT}", ways)

    def lift(self):
        for space in (self.client, self.server):
            self.nft(space, "flush chain inet faults in")

    def received(self, device):
        """Bytes that arrived at the client on a link."""
        path = f"/sys/class/net/{device}/statistics/rx_bytes"
        return int(self.exec(self.client, "cat", path))


def wait_until(what, condition, within=30.0, every=0.05):
    """Waits for a condition; how long that took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > within:
            raise AssertionError(f"within {within:g} s it did not come to be that {what}")
        time.sleep(every)
    return time.monotonic() - start
