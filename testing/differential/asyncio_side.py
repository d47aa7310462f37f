#!/usr/bin/env python3
"""Runs scenarios on Python's asyncio, in virtual time, and writes what happened.

usage: asyncio_side.py FILE [NAME...]

troupe_side.cc is the same for Troupe: whatever is changed here is changed there. README.md has the statements.
"""

import asyncio
import contextvars
import gc
import logging
import socket
import sys
import warnings

import scenario
import simulated

VARIABLE = contextvars.ContextVar("variable", default="none")
STEPS_MAX = 5000
SETTLED = 1000


class Oops(Exception):
    def __init__(self, name):
        super().__init__(name)
        self.name = name


class Fatal(SystemExit):
    pass


def name_of(error):
    """The word for an exception: its own name, or its kind."""
    if isinstance(error, Oops):
        return error.name
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    if isinstance(error, Fatal):
        return "fatal"
    if isinstance(error, simulated.Stalled):
        return "stalled"
    if isinstance(error, OSError) and error.strerror in ("EPIPE", "ECONNRESET"):
        return error.strerror
    if isinstance(error, (asyncio.InvalidStateError, RuntimeError, ValueError)):
        return "invalid"
    return "defect"  # of asyncio itself


def error_of(name):
    if name == "cancelled":
        return asyncio.CancelledError()
    if name == "fatal":
        return Fatal()
    return Oops(name)


def catches(kind, error):
    name = name_of(error)
    if name in ("fatal", "stalled"):
        return False
    return kind == "all" or kind == name or (kind == "any" and name != "cancelled")


def show(value):
    if isinstance(value, list):
        return "[%s]" % ", ".join(name_of(each) if isinstance(each, BaseException) else show(each) for each in value)
    return "none" if value is None else value


class Frame:
    """One body under way."""

    def __init__(self, label):
        self.label = label
        self.value = None
        self.error = None  # what `rethrow` throws


class Wire(asyncio.Protocol):
    def __init__(self, world, name, handlers):
        self.world = world
        self.name = name
        self.handlers = handlers
        self.frame = Frame(name)
        self.transport = None
        self.lost = False

    def handle(self, event, note=None):
        self.world.log(self.frame, note or event)
        if event in self.handlers:
            self.world.block_now(self.frame, self.handlers[event])

    def connection_made(self, transport):
        self.transport = transport
        self.handle("made")

    def data_received(self, data):
        self.handle("data", "data %d %s" % (len(data), data[:1].decode()))

    def eof_received(self):
        self.handle("eof")
        return "keep" in self.handlers

    def pause_writing(self):
        self.handle("pause")

    def resume_writing(self):
        self.handle("resume")

    def connection_lost(self, error):
        self.lost = True
        self.handle("lost", "lost" if error is None else "lost " + getattr(error, "strerror", "exception"))


class World:
    """One scenario, and what happened in it."""

    def __init__(self, statements):
        self.trace = []
        self.bodies = {}
        self.generators = {}
        self.protocols = {}
        self.program = []
        for statement in statements:
            kind, *names = statement.words
            if kind in ("body", "generator"):
                (self.bodies if kind == "body" else self.generators)[names[0]] = statement.block
            elif kind == "protocol":
                self.protocols[names[0]] = {
                    words[0]: block or [] for each in statement.block for words, block in each.parts
                }
            else:
                self.program.append(statement)
        self.loop = simulated.Loop()
        self.loop.set_exception_handler(self.report)
        self.executor = simulated.Executor(self.loop.simulated)
        self.things = {}
        self.tasks = []  # names
        self.handles = {}
        self.callbacks = {}
        self.wires = []
        self.unretrieved = []
        self.steps = 0
        self.over = False
        self.leave = False
        self.settled = 0

    # ---- the trace

    def log(self, frame, *words):
        if not self.over:
            self.trace.append("%g %s: %s" % (self.loop.time(), frame.label, " ".join(map(str, words))))

    def report(self, loop, context):
        message = context["message"]
        error = context.get("exception")
        if message.endswith("was never retrieved"):
            self.unretrieved.append(name_of(error))
        elif error is not None:
            self.log(Frame("report"), name_of(error))

    # ---- statements that do not wait

    def thing(self, name):
        if name == "self":
            return asyncio.current_task(self.loop)
        return self.things[name]

    def callback(self, frame, block):
        return lambda *ignored: self.block_now(frame, block)

    def block_now(self, frame, block):
        for statement in block:
            self.statement_now(frame, statement)

    def statement_now(self, frame, statement):
        """False: this one waits."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Fatal
        verb, *words = statement.words
        does = getattr(self, "now_" + verb, None)
        if does is None:
            return False
        does(frame, words, statement)
        return True

    def now_log(self, frame, words, statement):
        self.log(frame, *words)

    def now_raise(self, frame, words, statement):
        raise error_of(words[0])

    def now_rethrow(self, frame, words, statement):
        raise frame.error

    def now_repeat(self, frame, words, statement):
        for _ in range(int(words[0])):
            self.block_now(frame, statement.block)

    def now_future(self, frame, words, statement):
        self.things[words[0]] = self.loop.create_future()

    def now_set(self, frame, words, statement):
        self.things[words[0]].set_result(words[1])

    def now_fail(self, frame, words, statement):
        self.things[words[0]].set_exception(error_of(words[1]))

    def now_cancel(self, frame, words, statement):
        thing = self.thing(words[0])
        self.log(frame, "cancel", words[0], "->", "yes" if thing.cancel() else "no")

    def now_state(self, frame, words, statement):
        thing = self.thing(words[0])
        state = "pending"
        if thing.cancelled():
            state = "cancelled"
        elif thing.done():
            state = "failed" if thing._exception is not None else "done"
        self.log(frame, words[0], "is", state)

    def now_result(self, frame, words, statement):
        try:
            self.log(frame, "result", words[0], "->", "value", show(self.thing(words[0]).result()))
        except BaseException as error:
            self.log(frame, "result", words[0], "->", name_of(error))

    def now_callback(self, frame, words, statement):
        callback = self.callback(Frame(words[1]), statement.block)
        self.callbacks[words[1]] = (self.thing(words[0]), callback)
        self.thing(words[0]).add_done_callback(callback)

    def now_uncallback(self, frame, words, statement):
        thing, callback = self.callbacks[words[0]]
        self.log(frame, "uncallback", words[0], "->", "yes" if thing.remove_done_callback(callback) else "no")

    def now_soon(self, frame, words, statement):
        self.handles[words[0]] = self.loop.call_soon(self.callback(Frame(words[0]), statement.block))

    def now_later(self, frame, words, statement):
        callback = self.callback(Frame(words[0]), statement.block)
        self.handles[words[0]] = self.loop.call_later(float(words[1]), callback)

    def now_at(self, frame, words, statement):
        callback = self.callback(Frame(words[0]), statement.block)
        self.handles[words[0]] = self.loop.call_at(float(words[1]), callback)

    def now_drop(self, frame, words, statement):
        self.handles[words[0]].cancel()

    def now_spawn(self, frame, words, statement):
        task = self.loop.create_task(self.body(words[0], words[1]), name=words[0])
        self.things[words[0]] = task
        self.tasks.append(task)

    def now_current(self, frame, words, statement):
        task = asyncio.current_task(self.loop)
        self.log(frame, "current", "none" if task is None else task.get_name() if task in self.tasks else "other")

    def now_stop(self, frame, words, statement):
        self.loop.stop()

    def now_setvar(self, frame, words, statement):
        VARIABLE.set(words[0])

    def now_getvar(self, frame, words, statement):
        self.log(frame, "variable", VARIABLE.get())

    def now_event(self, frame, words, statement):
        self.things[words[0]] = asyncio.Event()

    def now_eset(self, frame, words, statement):
        self.things[words[0]].set()

    def now_eclear(self, frame, words, statement):
        self.things[words[0]].clear()

    def now_semaphore(self, frame, words, statement):
        self.things[words[0]] = asyncio.Semaphore(int(words[1]))

    def now_lock(self, frame, words, statement):
        self.things[words[0]] = asyncio.Lock()

    def now_queue(self, frame, words, statement):
        self.things[words[0]] = asyncio.Queue(int(words[1]))

    def now_tryput(self, frame, words, statement):
        try:
            self.things[words[0]].put_nowait(words[1])
            self.log(frame, "tryput", words[0], "-> yes")
        except asyncio.QueueFull:
            self.log(frame, "tryput", words[0], "-> no")

    def now_tryget(self, frame, words, statement):
        try:
            self.log(frame, "tryget", words[0], "->", self.things[words[0]].get_nowait())
        except asyncio.QueueEmpty:
            self.log(frame, "tryget", words[0], "-> nothing")

    def now_taskdone(self, frame, words, statement):
        self.things[words[0]].task_done()

    def now_generate(self, frame, words, statement):
        self.things[words[0]] = self.generator(words[0], self.generators[words[1]])

    def now_gathering(self, frame, words, statement):
        self.things[words[0]] = asyncio.gather(*self.awaitables(words[1:]))

    def now_settling(self, frame, words, statement):
        self.things[words[0]] = asyncio.gather(*self.awaitables(words[1:]), return_exceptions=True)

    def now_shielding(self, frame, words, statement):
        self.things[words[0]] = asyncio.shield(self.things[words[1]])

    # ---- transports

    def now_connect(self, frame, words, statement):
        names, capacity = words[:2], int(words[2])
        for name, end in zip(names, self.loop.pair(capacity)):
            wire = Wire(self, name, self.protocols[name])
            self.wires.append(wire)
            self.things[name] = self.loop._make_socket_transport(end, wire)

    def now_write(self, frame, words, statement):
        self.things[words[0]].write(words[1].encode() * (int(words[2]) if len(words) > 2 else 1))

    def now_writelines(self, frame, words, statement):
        self.things[words[0]].writelines([word.encode() for word in words[1:]])

    def now_weof(self, frame, words, statement):
        self.things[words[0]].write_eof()

    def now_close(self, frame, words, statement):
        self.things[words[0]].close()

    def now_abort(self, frame, words, statement):
        self.things[words[0]].abort()

    def now_pause(self, frame, words, statement):
        self.things[words[0]].pause_reading()

    def now_resume(self, frame, words, statement):
        self.things[words[0]].resume_reading()

    def now_limits(self, frame, words, statement):
        high, low = (None if word == "-" else int(word) for word in words[1:3])
        try:
            self.things[words[0]].set_write_buffer_limits(high=high, low=low)
        except ValueError:
            self.log(frame, "limits refused")

    def now_info(self, frame, words, statement):
        transport = self.things[words[0]]
        low, high = transport.get_write_buffer_limits()
        self.log(frame, words[0], "buffered", transport.get_write_buffer_size(), "marks", high, low,
                 "closing" if transport.is_closing() else "open",
                 "reading" if transport.is_reading() else "paused")  # fmt: skip

    # ---- descriptors, signals, the executor

    def now_sockets(self, frame, words, statement):
        self.things[words[0]], self.things[words[1]] = self.loop.pair(int(words[2]))

    def now_reader(self, frame, words, statement):
        self.loop.add_reader(self.things[words[0]].fileno(), self.callback(Frame(words[1]), statement.block))

    def now_writer(self, frame, words, statement):
        self.loop.add_writer(self.things[words[0]].fileno(), self.callback(Frame(words[1]), statement.block))

    def now_unreader(self, frame, words, statement):
        removed = self.loop.remove_reader(self.things[words[0]].fileno())
        self.log(frame, "unreader", words[0], "->", "yes" if removed else "no")

    def now_unwriter(self, frame, words, statement):
        removed = self.loop.remove_writer(self.things[words[0]].fileno())
        self.log(frame, "unwriter", words[0], "->", "yes" if removed else "no")

    def log_received(self, frame, verb, name, data):
        self.log(frame, verb, name, "->", len(data), data[:1].decode() or "end")

    def now_take(self, frame, words, statement):
        try:
            self.log_received(frame, "take", words[0], self.things[words[0]].recv(int(words[1])))
        except BlockingIOError:
            self.log(frame, "take", words[0], "-> nothing")

    def now_give(self, frame, words, statement):
        try:
            self.log(frame, "give", words[0], "->", self.things[words[0]].send(words[1].encode() * int(words[2])))
        except BlockingIOError:
            self.log(frame, "give", words[0], "-> nothing")

    def now_sockeof(self, frame, words, statement):
        self.things[words[0]].shutdown(socket.SHUT_WR)

    def now_sockclose(self, frame, words, statement):
        self.things[words[0]].close()

    def now_signal(self, frame, words, statement):
        self.loop.add_signal_handler(int(words[0]), self.callback(Frame(words[1]), statement.block))

    def now_unsignal(self, frame, words, statement):
        self.log(frame, "unsignal", words[0], "->", "yes" if self.loop.remove_signal_handler(int(words[0])) else "no")

    def now_kill(self, frame, words, statement):
        self.loop.kill(int(words[0]))

    def now_execute(self, frame, words, statement):
        def work():
            self.block_now(Frame(words[0]), statement.block)
            return "worked"

        self.things[words[0]] = self.loop.run_in_executor(self.executor, work)

    # ---- statements that wait

    async def do_recv(self, frame, words, statement):
        self.log_received(frame, "recv", words[0], await self.loop.sock_recv(self.things[words[0]], int(words[1])))

    async def do_sendall(self, frame, words, statement):
        await self.loop.sock_sendall(self.things[words[0]], words[1].encode() * int(words[2]))
        self.log(frame, "sendall", words[0], "done")

    def awaitables(self, words):
        return [self.body(word[:-2], word[:-2]) if word.endswith("()") else self.things[word] for word in words]

    async def body(self, label, name):
        frame = Frame(label)
        await self.block(frame, self.bodies[name])
        return frame.value

    async def block(self, frame, block):
        """True: it returned."""
        for statement in block:
            if self.statement_now_unless_block(frame, statement):
                continue
            if await getattr(self, "do_" + statement.words[0])(frame, statement.words[1:], statement):
                return True
        return False

    def statement_now_unless_block(self, frame, statement):
        return statement.words[0] != "repeat" and self.statement_now(frame, statement)

    async def do_repeat(self, frame, words, statement):
        for _ in range(int(words[0])):
            if await self.block(frame, statement.block):
                return True

    async def do_return(self, frame, words, statement):
        frame.value = words[0]
        return True

    async def do_try(self, frame, words, statement):
        error = None
        returned = False
        last = None
        clauses = statement.parts[1:]
        if clauses and clauses[-1][0][0] == "finally":
            last = clauses[-1][1]
            clauses = clauses[:-1]
        try:
            returned = await self.block(frame, statement.block)
        except GeneratorExit:
            raise
        except BaseException as caught:
            error = caught
        if error is not None:
            for words, block in clauses:
                if catches(words[1], error):
                    outer, frame.error = frame.error, error
                    error = None
                    try:
                        returned = await self.block(frame, block)
                    except GeneratorExit:
                        raise
                    except BaseException as caught:
                        error = caught
                    frame.error = outer
                    break
        if last is not None and (error is None or name_of(error) not in ("fatal", "stalled")):
            if await self.block(frame, last):
                return True
        if error is not None:
            raise error
        return returned

    async def do_sleep(self, frame, words, statement):
        await asyncio.sleep(float(words[0]))

    async def do_await(self, frame, words, statement):
        self.log(frame, "await", words[0], "->", show(await self.thing(words[0])))

    async def do_call(self, frame, words, statement):
        self.log(frame, "call", words[0], "->", show(await self.body(frame.label + "." + words[0], words[0])))

    async def do_gather(self, frame, words, statement):
        self.log(frame, "gather ->", show(await asyncio.gather(*self.awaitables(words))))

    async def do_settle(self, frame, words, statement):
        self.log(frame, "settle ->", show(await asyncio.gather(*self.awaitables(words), return_exceptions=True)))

    async def do_shield(self, frame, words, statement):
        self.log(frame, "shield ->", show(await asyncio.shield(self.awaitables(words)[0])))

    async def do_waitfor(self, frame, words, statement):
        timeout = None if words[0] == "-" else float(words[0])
        self.log(frame, "waitfor ->", show(await asyncio.wait_for(self.awaitables(words[1:])[0], timeout)))

    async def do_wait(self, frame, words, statement):
        when = {"all": asyncio.ALL_COMPLETED, "first": asyncio.FIRST_COMPLETED, "failed": asyncio.FIRST_EXCEPTION}
        timeout = None if words[1] == "-" else float(words[1])
        things = self.awaitables(words[2:])
        done, _ = await asyncio.wait(things, return_when=when[words[0]], timeout=timeout)
        names = [name for name, thing in zip(words[2:], things) if thing in done]
        self.log(frame, "wait -> done", *dict.fromkeys(names))

    async def do_completed(self, frame, words, statement):
        timeout = None if words[0] == "-" else float(words[0])
        # In which order those come that are done already asyncio leaves open.
        pending = [thing for thing in self.awaitables(words[1:]) if not thing.done()]
        for each in asyncio.as_completed(pending, timeout=timeout):
            try:
                self.log(frame, "completed ->", show(await each))
            except (Oops, asyncio.TimeoutError) as error:
                self.log(frame, "completed ->", name_of(error))

    async def do_group(self, frame, words, statement):
        try:
            async with simulated.TaskGroup() as group:
                for word in words:
                    name, body = word.split(":")
                    task = group.create_task(self.body(name, body), name=name)
                    self.things[name] = task
                    self.tasks.append(task)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0]
        self.log(frame, "group done")

    async def do_ewait(self, frame, words, statement):
        await self.things[words[0]].wait()

    async def do_with(self, frame, words, statement):
        async with self.things[words[0]]:
            return await self.block(frame, statement.block)

    async def do_put(self, frame, words, statement):
        await self.things[words[0]].put(words[1])

    async def do_get(self, frame, words, statement):
        self.log(frame, "get", words[0], "->", await self.things[words[0]].get())

    async def do_join(self, frame, words, statement):
        await self.things[words[0]].join()

    async def do_next(self, frame, words, statement):
        try:
            self.log(frame, "next", words[0], "->", await self.things[words[0]].__anext__())
        except StopAsyncIteration:
            self.log(frame, "next", words[0], "-> end")

    async def do_aclose(self, frame, words, statement):
        await self.things[words[0]].aclose()

    async def generator(self, label, block):
        frame = Frame(label)
        for statement in block:
            if statement.words[:1] == ["try"]:
                try:
                    for inner in statement.block:
                        if inner.words[0] == "yield":
                            yield inner.words[1]
                        else:
                            await self.block(frame, [inner])
                finally:
                    await self.block(frame, statement.parts[1][1])
            elif statement.words[0] == "yield":
                yield statement.words[1]
            else:
                await self.block(frame, [statement])

    # ---- the program

    def run(self):
        top = Frame("loop")
        for statement in self.program:
            try:
                if statement.words[0] == "run":
                    value = self.loop.run_until_complete(self.body(statement.words[1], statement.words[1]))
                    self.log(top, "run ->", show(value))
                elif statement.words[0] == "runfuture":
                    value = self.loop.run_until_complete(self.things[statement.words[1]])
                    self.log(top, "runfuture ->", show(value))
                elif statement.words[0] == "forever":
                    self.loop.run_forever()
                    self.log(top, "stopped")
                elif statement.words[0] == "leave":
                    self.leave = True
                elif statement.words[0] == "closeloop":
                    self.loop.close()
                else:
                    self.statement_now(top, statement)
            except BaseException as error:
                self.log(top, statement.words[0], "->", name_of(error))
        self.finish()
        return self.trace

    def settle(self):
        """Runs until nothing more can happen by itself, for a time that is always the same: what is left behind in the
        heap does not matter."""
        self.settled += SETTLED
        self.loop.call_at(self.settled, self.loop.stop)
        for _ in range(100):
            if self.loop.time() >= self.settled:
                break
            try:
                self.loop.run_forever()
            except Fatal:
                self.log(Frame("loop"), "settle -> fatal")
            except simulated.Stalled:
                break

    def finish(self):
        if not self.loop.is_closed():
            self.settle()
            for _ in range(5):
                left = [task for task in self.tasks if not task.done()]
                if not left or self.leave:
                    break
                self.log(Frame("loop"), "cancelling", len(left))
                for task in left:
                    try:
                        task.cancel()
                    except RecursionError as error:
                        self.log(Frame("loop"), "cancelling ->", name_of(error))
                self.settle()
            for wire in self.wires:
                if not wire.lost:
                    wire.transport.abort()
            self.settle()
        for task in self.tasks:
            state = "cancelled" if task.cancelled() else "pending" if not task.done() else \
                "done" if task._exception is None else "failed"  # fmt: skip
            self.log(Frame(task.get_name()), state)
        self.over = True
        self.loop.close()
        self.things.clear()
        self.tasks.clear()
        self.callbacks.clear()
        self.handles.clear()
        self.wires.clear()
        task = left = wire = None  # the last ones of the loops above
        gc.collect()
        for name in sorted(self.unretrieved):
            self.trace.append("unretrieved " + name)


def run(scenario_):
    """Returns the trace of a scenario, as lines."""
    return contextvars.copy_context().run(lambda: World(scenario_.statements).run())


def be_quiet():
    """What is logged and warned of is not compared."""
    logging.disable()
    sys.unraisablehook = lambda *ignored: None
    warnings.simplefilter("ignore")


def main(arguments):
    be_quiet()
    with open(arguments[1], encoding="utf-8") as file:
        scenarios = scenario.parse(file.read())
    for each in scenarios:
        if len(arguments) == 2 or each.name in arguments[2:]:
            print("=== " + each.name)
            print("\n".join(run(each)))


if __name__ == "__main__":
    main(sys.argv)
