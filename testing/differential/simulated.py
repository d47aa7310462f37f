"""A loop of asyncio in virtual time, on sockets in memory: what testing/sim is for Troupe.

Nothing sleeps: when nothing is ready, the selector moves the clock to the loop's next timer or to when a worker of the
executor starts, and where there is neither it raises Stalled. Sockets hold a bounded number of bytes in each direction;
what is sent arrives at the next poll. A signal comes as it does in asyncio, as a byte in the loop's socket to itself.
"""

import asyncio
import collections
import concurrent.futures
import errno
import selectors
import signal
import socket
from asyncio import selector_events, unix_events

# A scenario that polls more often goes round in circles.
POLLS_MAX = 20000
# From submission to the start of the work, as in troupe_side.cc.
WORKER_LATENCY = 0.5
SELF_PIPE_BYTES = 1000


class Stalled(BaseException):
    """Nothing is left that could wake the loop."""


class _Timer(asyncio.TimerHandle):
    """asyncio leaves the order of equal times open. Here it is that of their making, as with Troupe."""

    __slots__ = ["number"]
    made = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        _Timer.made += 1
        self.number = _Timer.made

    def __lt__(self, other):
        return (self._when, self.number) < (other._when, other.number)


asyncio.events.TimerHandle = _Timer


class _InOrder(dict):
    """A set in the order in which it was filled."""

    def add(self, item):
        self[item] = None

    def discard(self, item):
        self.pop(item, None)


class TaskGroup(asyncio.TaskGroup):
    """asyncio leaves open in which order the tasks are cancelled. Here it is that of their making, as with Troupe."""

    def __init__(self):
        super().__init__()
        self._tasks = _InOrder()


class Network:
    """What has been sent and not arrived yet."""

    def __init__(self):
        self.packets = collections.deque()
        self.next_descriptor = 1000

    def pair(self, capacity):
        ends = [Socket(self, capacity), Socket(self, capacity)]
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        return ends

    def arrive(self):
        while self.packets:
            end, kind, what = self.packets.popleft()
            end.handle(kind, what)


class Socket:
    """One end of a Unix socket pair."""

    family = socket.AF_UNIX
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network, capacity):
        self.network = network
        self.capacity = capacity
        self.descriptor = network.next_descriptor
        network.next_descriptor += 1
        self.peer = None
        self.watcher = None
        self.received = bytearray()
        self.unacknowledged = 0
        self.end_sent = self.end_received = self.closed = self.reset = False
        self.error = None

    def transmit(self, kind, what=None):
        self.network.packets.append((self.peer, kind, what))

    def handle(self, kind, what):
        if self.closed or self.reset:
            return
        if kind == "bytes":
            self.received += what
        elif kind == "end":
            self.end_received = True
        elif kind == "acknowledge":
            self.unacknowledged -= what
        elif kind == "reset":
            self.error = BrokenPipeError(32, "EPIPE") if self.end_received else ConnectionResetError(104, "ECONNRESET")
            self.reset = True
        self.changed()

    def changed(self):
        if self.watcher is not None:
            self.watcher.candidate(self)

    def readiness(self):
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        if self.error is not None or self.reset:
            return both
        if self.end_received and (self.end_sent or self.peer.closed):
            return both
        ready = 0
        if self.received or self.end_received:
            ready |= selectors.EVENT_READ
        if self.end_sent or self.unacknowledged < self.capacity:
            ready |= selectors.EVENT_WRITE
        return ready

    def take_error(self):
        error, self.error = self.error, None
        if error is not None:
            raise error

    # ---- what asyncio calls

    def fileno(self):
        return -1 if self.closed else self.descriptor

    def recv(self, size):
        if self.received:
            data = bytes(self.received[:size])
            del self.received[:size]
            if not self.reset:
                self.transmit("acknowledge", len(data))
            return data
        if self.end_received:
            return b""
        self.take_error()
        if self.reset:
            return b""
        raise BlockingIOError

    def send(self, data):
        self.take_error()
        if self.reset or self.end_sent or self.peer.closed:
            raise BrokenPipeError(32, "EPIPE")
        data = bytes(data[: self.capacity - self.unacknowledged])
        if not data:
            raise BlockingIOError
        self.unacknowledged += len(data)
        self.transmit("bytes", data)
        return len(data)

    def shutdown(self, how):
        assert how == socket.SHUT_WR
        if not self.end_sent:
            self.end_sent = True
            self.transmit("end")
            self.changed()

    def close(self):
        if self.closed:
            return
        self.closed = True
        if not self.reset:
            self.transmit("reset" if self.received else "end")

    def gettimeout(self):
        return 0

    def getsockname(self):
        return ""

    getpeername = getsockname


class Selector(selectors.BaseSelector):
    """Level-triggered. What was ready is looked at in the order in which it last changed."""

    def __init__(self, network):
        self.network = network
        self.now = 0.0
        self.polls = 0
        self.keys = {}
        self.sockets = {}
        self.candidates = []
        self.workers = []  # (when, what), in the order of their times

    def candidate(self, end):
        if end.descriptor in self.keys and end not in self.candidates:
            self.candidates.append(end)

    def register(self, fileobj, events, data=None):
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self.keys[fileobj] = key
        end = self.sockets[fileobj]
        end.watcher = self
        self.candidate(end)
        return key

    def unregister(self, fileobj):
        end = self.sockets[fileobj]
        if end in self.candidates:
            self.candidates.remove(end)
        return self.keys.pop(fileobj)

    def modify(self, fileobj, events, data=None):
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self.keys[fileobj] = key
        self.candidate(self.sockets[fileobj])
        return key

    def collect(self):
        events = []
        ready = []
        for end in self.candidates:
            key = self.keys[end.descriptor]
            if mask := end.readiness() & key.events:
                events.append((key, mask))
                ready.append(end)
        self.candidates = ready
        return events

    def select(self, timeout=None):
        self.polls += 1
        if self.polls > POLLS_MAX:
            raise Stalled
        self.network.arrive()
        events = self.collect()
        if events:
            return events
        if self.workers and (timeout is None or self.workers[0][0] <= self.now + timeout):
            self.now, work = self.workers.pop(0)
            work()
            return []
        if timeout is None:
            raise Stalled
        self.now += timeout
        return []

    def close(self):
        pass

    def get_map(self):
        return self.keys

    def get_key(self, fileobj):
        return self.keys[fileobj]


def correct_old_asyncio():
    """Debian 12's CPython, 3.11.2, reads after connection_made although it was paused there; later ones do not."""
    transport = selector_events._SelectorSocketTransport
    inherited = transport._add_reader

    def add_reader(self, *args):
        if self.is_reading():
            inherited(self, *args)

    transport._add_reader = add_reader


correct_old_asyncio()


class Executor(concurrent.futures.Executor):
    """Workers that need some time to start, and none to work."""

    def __init__(self, selector):
        self.selector = selector

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()

        def work():
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self.selector.workers.append((self.selector.now + WORKER_LATENCY, work))
        return future


class _Signals:
    """The module signal, for a process that gets signals only from the scenario."""

    def __getattr__(self, name):
        return getattr(signal, name)

    def set_wakeup_fd(self, descriptor):
        pass

    def signal(self, number, handler):
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise OSError(errno.EINVAL, "EINVAL")

    def siginterrupt(self, number, flag):
        pass


unix_events.signal = _Signals()


class Loop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.network = Network()
        self.simulated = Selector(self.network)
        super().__init__(self.simulated)
        self._clock_resolution = 1e-9

    def time(self):
        return self.simulated.now

    def pair(self, capacity):
        ends = self.network.pair(capacity)
        for end in ends:
            self.simulated.sockets[end.descriptor] = end
        return ends

    def kill(self, number):
        """Without a handler a process would end, or not notice."""
        if number in self._signal_handlers:
            self._csock.send(bytes([number]))

    # Only signals wake this loop from outside.
    def _make_self_pipe(self):
        self._ssock, self._csock = self.pair(SELF_PIPE_BYTES)
        self._internal_fds = 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)

    def _close_self_pipe(self):
        self._remove_reader(self._ssock.fileno())

    def _write_to_self(self):
        pass
