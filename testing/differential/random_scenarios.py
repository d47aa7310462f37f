"""Scenarios from a seed: programs of tasks that meet each other in every way that the language has, and connections.

A body may start only bodies that come after it, so that every program ends; it names only what surely exists; and it
waits only for tasks that were made before its own, or by it: asyncio cannot cancel tasks that wait in a circle.
"""

import random

_TIMES = ("0", "0", "0", "0.5", "1", "1", "1", "1.5", "2")
_ERRORS = ("E1", "E2", "E3")


class _Tasks:
    """A program of tasks."""

    def __init__(self, rng):
        self.rng = rng
        self.notes = 0
        self.made = 0
        self.futures = ["f", "g", "h"]
        # asyncio tells what is waited for in wait_for (up to 3.11) and in a group of its cancellation an iteration later
        # than Troupe does, and a cancelled gather ends with the first of its children: where tasks are cancelled these
        # are left out or small, and where they are not, wait_for and groups cancel only what waits in none of them.
        self.cancels = rng.random() < 0.6

    def write(self):
        rng = self.rng
        count = rng.randint(3, 6)
        self.bodies = ["B%d" % i for i in range(count)]
        lines = ["future %s" % name for name in self.futures]
        lines += ["event e", "lock l", "semaphore s %d" % rng.randint(1, 2), "queue q %d" % rng.randint(0, 2)]
        tasks = ["t%d" % i for i in range(rng.randint(2, 5))]
        self.tasks = tasks
        bodies = []
        for i, name in enumerate(self.bodies):
            self.below = self.bodies[i + 1 :]
            bodies.append("body %s {\n%s\n}" % (name, self.block(self.futures, 2, True, "  ")))
        for i, task in enumerate(tasks):
            self.below = self.bodies
            bodies.append("body T%d {\n%s\n}" % (i, self.block(tasks[:i] + self.futures, 3, True, "  ")))
            lines.append("spawn %s T%d" % (task, i))
        combined = []
        if not self.cancels:
            lines.append("leave")
        if rng.random() < 0.5:
            kind = rng.choice(("gathering", "settling"))
            pool = self.futures if kind == "gathering" and self.cancels else tasks + self.futures
            lines.append("%s x %s" % (kind, " ".join(rng.choices(pool, k=rng.randint(1, 3)))))
            combined.append("x")
        if rng.random() < 0.4:
            lines.append("shielding y %s" % rng.choice(tasks + self.futures))
            combined.append("y")
        for _ in range(rng.randint(1, 5)):
            self.below = []
            timer = "later %s %s" % (self.name("k"), rng.choice(_TIMES))
            lines.append("%s {\n%s\n}" % (timer, self.block(tasks + self.futures + combined, 1, False, "  ")))
        for name in combined:
            lines.append("callback %s %s { log done }" % (name, self.name("c")))
        return "\n".join(bodies + lines)

    def name(self, prefix):
        self.made += 1
        return "%s%d" % (prefix, self.made)

    def block(self, things, depth, waits, indent):
        things = list(things)
        lines = []
        for _ in range(self.rng.randint(1, 5 if depth > 1 else 3)):
            kinds = [self.now] * 5 + ([self.wait] * 6 if waits else []) + ([self.nest] * 3 if waits and depth else [])
            lines.append(self.rng.choice(kinds)(things, depth, indent))
        return "\n".join(indent + line for line in lines)

    def log(self):
        self.notes += 1
        return "log %d" % self.notes

    def now(self, things, depth, indent):
        rng = self.rng
        kind = rng.randrange(15)
        if kind == 0 and self.below:
            name = self.name("n")
            things.append(name)
            return "spawn %s %s" % (name, rng.choice(self.below))
        if kind in (1, 2) and self.cancels:
            return "cancel %s" % rng.choice(things + self.tasks)
        if kind == 3:
            return "set %s v%d" % (rng.choice(self.futures), rng.randint(1, 9))
        if kind == 4:
            return "fail %s %s" % (rng.choice(self.futures), rng.choice(_ERRORS))
        if kind == 5:
            return "state %s" % rng.choice(things + self.tasks)
        if kind == 6 and depth:
            when = rng.choice(("soon %s", "later %s " + rng.choice(_TIMES))) % self.name("h")
            return "%s {\n%s\n%s}" % (when, self.block(things, 0, False, indent + "  "), indent)
        if kind == 7 and depth:
            name = self.name("c")
            block = self.block(things, 0, False, indent + "  ")
            return "callback %s %s {\n%s\n%s}" % (rng.choice(things), name, block, indent)
        if kind == 8:
            return rng.choice(("eset e", "eset e", "eclear e"))
        if kind == 9:
            return rng.choice(("tryput q v%d" % rng.randint(1, 9), "tryget q"))
        if kind == 10:
            return rng.choice(("setvar %s" % self.name("v"), "getvar"))
        if kind == 11 and rng.random() < 0.3:
            return "raise %s" % rng.choice(_ERRORS)
        return self.log()

    def arguments(self, things, count):
        pool = things + [name + "()" for name in self.below]
        return " ".join(self.rng.choices(pool, k=count))

    def wait(self, things, depth, indent):
        rng = self.rng
        kind = rng.randrange(18)
        if kind < 5:
            return "sleep %s" % rng.choice(_TIMES)
        if kind == 5:
            return "await %s" % rng.choice(things)
        if kind == 6 and self.below:
            return "call %s" % rng.choice(self.below)
        if kind == 7:
            if self.cancels:
                return "gather %s" % " ".join(rng.choices(self.futures, k=rng.randint(0, 3)))
            return "gather %s" % self.arguments(things, rng.randint(0, 3))
        if kind == 8:
            return "settle %s" % self.arguments(things, rng.randint(1, 3))
        if kind == 9:
            chosen = rng.sample(things, min(len(things), rng.randint(1, 3)))
            return "wait %s %s %s" % (rng.choice(("all", "first", "failed")), rng.choice(("-", "0", "1", "2")), " ".join(chosen))
        if kind == 10:
            chosen = rng.sample(things, min(len(things), rng.randint(1, 3)))
            return "completed %s %s" % (rng.choice(("-", "1", "2")), " ".join(chosen))
        if kind == 11:
            return "shield %s" % self.arguments(things, 1)
        if kind == 12 and self.below and not self.cancels:
            return "waitfor %s %s" % (rng.choice(("0.5", "1", "2")), rng.choice(self.futures))
        if kind == 13:
            return "ewait e"
        if kind == 14:
            return rng.choice(("put q v%d" % rng.randint(1, 9), "get q", "get q"))
        if kind == 15 and self.below and not self.cancels:
            names = [self.name("g") for _ in range(rng.randint(1, 3))]
            things += names
            return "group %s" % " ".join("%s:%s" % (name, self.bodies[-1]) for name in names)
        if kind == 16 and rng.random() < 0.3:
            return "return r%d" % rng.randint(1, 9)
        if kind == 17 and self.cancels:
            return "cancel self"
        return "sleep 0"

    def nest(self, things, depth, indent):
        rng = self.rng
        block = self.block(things, depth - 1, True, indent + "  ")
        kind = rng.randrange(8)
        if kind == 0:
            return "with %s {\n%s\n%s}" % (rng.choice(("l", "s")), block, indent)
        if kind == 1:
            return "repeat 2 {\n%s\n%s}" % (block, indent)
        text = "try {\n%s\n%s}" % (block, indent)
        handled = False
        if kind < 6:
            handler = self.block(things, depth - 1, True, indent + "  ")
            again = "\n%s  rethrow" % indent if rng.random() < 0.4 else ""
            kinds = ("any", "any", "all", "E1", "invalid") + (("cancelled", "cancelled") if self.cancels else ())
            text += " catch %s {\n%s%s\n%s}" % (rng.choice(kinds), handler, again, indent)
            handled = True
        if not handled or rng.random() < 0.3:
            text += " finally {\n%s\n%s}" % (self.block(things, depth - 1, True, indent + "  "), indent)
        return text


class _Connection:
    """Two ends of a connection, and what they and some timers do to it."""

    def __init__(self, rng):
        self.rng = rng

    def write(self):
        rng = self.rng
        lines = []
        # asyncio tells of the end of file again when it is told to resume reading after it.
        keeps = rng.random() < 0.4
        pauses = [] if keeps else ["pause"]
        for end in "pq":
            # Only one of them answers, and nobody writes when told to resume: or it would never end.
            answers = ["write"] * 3 if end == "p" else ["info"]
            end_of = rng.choice(("info", "info", "info", "close", "abort"))
            handlers = ["made { %s }" % self.block(end, ["write"] * 6 + ["limits", "limits", end_of] + pauses)]
            handlers.append("data { %s }" % self.block(end, answers * 2 + ["info", end_of, end_of, "weof", "raise"] + pauses * 2, 1))
            handlers.append("eof { %s }" % self.block(end, ["write", "close", "abort", "weof", "raise", "info"], 1))
            handlers.append("pause { %s }" % self.block(end, ["info", "raise"], 1))
            handlers.append("resume { %s }" % self.block(end, ["info", "raise"], 1))
            handlers.append("lost { %s }" % self.block(end, ["info", "close", "raise"], 1))
            if keeps and rng.random() < 0.7:
                handlers.append("keep")
            lines.append("protocol %s {\n  %s\n}" % (end, "\n  ".join(handlers)))
        lines.append("connect p q %d" % rng.choice((1, 7, 10, 100)))
        kinds = ["write"] * 6 + ["info", "info", "limits", "weof", "close", "writelines"] + pauses + ["resume"] * 2 * len(pauses)
        kinds += rng.choice((["abort"], []))
        for i in range(rng.randint(4, 10)):
            lines.append("later k%d %s { %s }" % (i, rng.choice(_TIMES), self.block(rng.choice("pq"), kinds)))
        return "\n".join(lines)

    def block(self, end, kinds, most=3):
        return "; ".join(self.statement(end, self.rng.choice(kinds)) for _ in range(self.rng.randint(0, most)))

    def statement(self, end, kind):
        rng = self.rng
        if kind == "write":
            return "write %s %s %d" % (end, rng.choice("abc"), rng.choice((1, 5, 10, 30)))
        if kind == "writelines":
            return "writelines %s aaa bb c" % end
        if kind == "limits":
            return "limits %s %s" % (end, rng.choice(("10 5", "1 0", "20 -", "- 3", "1 5", "0 0")))
        if kind == "raise":
            return "raise %s" % rng.choice(_ERRORS)
        return "%s %s" % (kind, end)


def generate(seed):
    """The text of one scenario."""
    rng = random.Random(seed)
    kind = _Connection if seed % 4 == 0 else _Tasks
    return "=== seed %d\n%s\n" % (seed, kind(rng).write())
