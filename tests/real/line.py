#!/usr/bin/env python3
"""A line with a delay and a rate between two TUN devices, for kernels without netem.

Whole IP packets go from one device to the other, so that TCP runs from end to end between the kernels on both
sides, and every fault of a tunnel is seen by both. Each direction is a bottleneck with a queue that drops at its
end, then the way. Nothing is lost otherwise, and nothing is reordered.

Runs until its standard input ends; a line there is answered with how many packets found a full queue, and by how
many milliseconds the line was late at the most, for it shares the machine with what it serves. The caller moves the
devices to where they belong.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

# The longest packet that a device hands over.
LONGEST = 65536
# Packets that are taken from one side before the other has its turn.
TURN = 64


def open_tun(name):
    """Makes the device; it lives as long as the descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


class Direction:
    """What is on its way from one device to the other, each packet with the time at which it arrives."""

    def __init__(self, source, target, rate, delay):
        self.source, self.target, self.rate, self.delay = source, target, rate, delay
        self.way = deque()
        self.free = 0.0
        # Two round trips of queue: what piles up while this process is late must not count as a full one.
        self.most_queued = 4 * delay
        self.dropped, self.late = 0, 0.0

    def enter(self, now):
        for _ in range(TURN):
            try:
                packet = os.read(self.source, LONGEST)
            except BlockingIOError:
                return
            except OSError:
                # The device is down.
                return
            begins = max(self.free, now)
            if begins - now > self.most_queued:
                self.dropped += 1
                continue
            self.free = begins + len(packet) / self.rate
            self.way.append((self.free + self.delay, packet))

    def deliver(self, now):
        while self.way and self.way[0][0] <= now:
            due, packet = self.way.popleft()
            self.late = max(self.late, now - due)
            try:
                os.write(self.target, packet)
            except OSError:
                # Nobody listens at the far end: it is down.
                pass


def main():
    near, far, delay_ms, mbit = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    near, far = open_tun(near), open_tun(far)
    rate, delay = mbit * 1e6 / 8, delay_ms / 1e3
    directions = [Direction(near, far, rate, delay), Direction(far, near, rate, delay)]
    poll = select.poll()
    for descriptor in (near, far, sys.stdin.fileno()):
        poll.register(descriptor, select.POLLIN)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        dues = [direction.way[0][0] for direction in directions if direction.way]
        # Late by a little rather than asked for too often.
        wait = max(0.5, (min(dues) - now) * 1e3) if dues else 1e3
        ready = [descriptor for descriptor, _ in poll.poll(wait)]
        if sys.stdin.fileno() in ready:
            if not sys.stdin.readline():
                return
            dropped, late = sum(each.dropped for each in directions), max(each.late for each in directions)
            print(f"{dropped} {late * 1e3:.0f}", flush=True)
        now = time.monotonic()
        for direction in directions:
            direction.enter(now)
            direction.deliver(now)


main()
