#!/usr/bin/env python3
"""Checks of the source tree that compilers do not make. Each rule is a function; its docstring says what and why.

usage: lint.py FILE_OF_THE_TREE | FOLDER      every rule, over the whole tree
       lint.py --coroutines FILE...           what g++ 12 and cancellation ask of anyone's coroutines, in these files

A line is excused by a comment on it that names the rule and the reason: NOLINT(troupe-sleep): the peer has no other sign.
Exits 1 if anything is found. tools/run lint runs it, and so does the Bazel test //tools/lint:tree.
"""

import os
import re
import sys

_RULES = []


def rule(*extensions, where=lambda path: True):
    """Registers check(path, source) -> [(line number, message)] for files with these extensions ("" is every text)."""

    def register(check):
        name = check.__name__.replace("_", "-")
        _RULES.append((name, extensions, where, check))
        return check

    return register


class Source:
    """A file: its text, and for C++ the same text with comments and the insides of literals blanked, places kept."""

    def __init__(self, path, text):
        self.text = text
        self.lines = text.split("\n")
        self.code = blank_comments_and_literals(text) if path.endswith((".h", ".cc")) else text
        self.code_lines = self.code.split("\n")

    def line_of(self, position):
        return self.text.count("\n", 0, position) + 1


_TOKEN = re.compile(
    r"""//[^\n]*(?:\\\n[^\n]*)*
      |/\*.*?\*/
      |\b(?:u8|u|U|L)?R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"
      |"(?:\\.|[^"\\\n])*"
      |(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+'""",
    re.DOTALL | re.VERBOSE,
)


def blank_comments_and_literals(text):
    def blank(match):
        token = match.group(0)
        blanked = re.sub(r"[^\n]", " ", token)
        if token.startswith("/"):
            return blanked
        if _INCLUDE.match(text, text.rfind("\n", 0, match.start()) + 1):
            return token
        first = token.index('"') if '"' in token[:4] else 0  # keeps the quotes, so that an argument is seen to be there
        return blanked[:first] + token[first] + blanked[first + 1 : -1] + token[-1]

    return _TOKEN.sub(blank, text)


def matches(pattern, source, message, code=True):
    """Findings for each line of the source that the pattern matches."""
    regex = re.compile(pattern)
    lines = source.code_lines if code else source.lines
    return [(n, message) for n, line in enumerate(lines, 1) if regex.search(line)]


# --- Layers -----------------------------------------------------------------------------------------------------------

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)

_BELOW_ASYNC = {"base", "os", "loop", "async"}
_ROOMS = _BELOW_ASYNC | {"net", "rpc", "wire", "actor", "service"}

# Which rooms of framework/ a room may include, itself aside. Generated code of protos/ is a room of its own.
SEES = {
    "base": set(),
    "os": {"base"},
    "loop": {"base", "os"},
    "async": {"base", "os", "loop"},
    "net": _BELOW_ASYNC,
    "rpc": _BELOW_ASYNC | {"protos"},
    "wire": _BELOW_ASYNC | {"rpc", "protos"},
    "actor": _BELOW_ASYNC | {"rpc", "protos"},
    "service": _ROOMS | {"protos"},
    "testing": _ROOMS | {"protos"},
    "services": _ROOMS | {"protos", "services"},
    "suites": _ROOMS | {"protos", "testing", "services"},
    "tools": _ROOMS | {"protos"},
}

# Our own suites in testing/, which users do not link, may use the services.
_SUITES = ("testing/benchmarks/", "testing/conformance/", "testing/faults/", "testing/fuzz/", "testing/interop/",
           "testing/readme/", "testing/samples/")


# Tests, and what only they use: event_loop_test.cc, loop_testing.h, testing_peer.cc.
_TEST_CODE = re.compile(r"(_(test|testing|test_util|benchmark|fuzz)|/testing_\w+)\.(h|cc)$")


def room_of_file(path):
    if path.startswith(_SUITES):
        return "suites"
    parts = path.split("/")
    if parts[0] == "framework":
        return parts[1]
    return parts[0] if parts[0] in ("testing", "services", "tools") else None


def room_of_include(include):
    """The room that an include belongs to; None if it is not ours."""
    if include.startswith(_SUITES):
        return "suites"
    parts = include.split("/")
    if parts[0] in ("framework", "testing", "protos"):
        return "outside"
    if parts[0] == "services":
        return "services"
    if parts[0] != "troupe":
        return None
    if include.endswith((".pb.h", ".troupe.h")):
        return "services" if parts[1] in ("services", "kv", "echo") else "protos"
    return parts[1] if len(parts) > 2 else "protos"


@rule(".h", ".cc", where=lambda path: room_of_file(path) is not None)
def layering(path, source):
    """Includes go down only (framework/README.md has the picture). Tests of any room may use what testing/ offers."""
    found = []
    room = room_of_file(path)
    is_test = _TEST_CODE.search(path) is not None
    allowed = SEES.get(room)
    if allowed is None:
        return [(1, "framework/%s is not a room that tools/lint knows; SEES says what each may include" % room)]
    allowed = allowed | {room} | ({"testing"} if is_test else set())
    for match in _INCLUDE.finditer(source.code):
        included = room_of_include(match.group(1))
        if included is None or included in allowed or (is_test and match.group(1).endswith(".pb.h")):
            continue
        if included == "outside":
            message = 'include "%s" as troupe/...' % match.group(1)
        else:
            message = "%s must not include %s (%s)" % (room, included, match.group(1))
        found.append((source.line_of(match.start(1)), message))
    return found


# --- Coroutines -------------------------------------------------------------------------------------------------------


_BRACKETS = {"(": ")", "{": "}", "[": "]"}


def closing(code, position):
    """The position of the bracket that closes the one at position, or the end."""
    own, other = code[position], _BRACKETS[code[position]]
    depth = 0
    for i in range(position, len(code)):
        depth += (code[i] == own) - (code[i] == other)
        if depth == 0:
            return i
    return len(code)


def opening(code, position):
    """The position of the ( that the ) at position closes, or the beginning."""
    depth = 0
    for i in range(position, -1, -1):
        depth += (code[i] == ")") - (code[i] == "(")
        if depth == 0:
            return i
    return 0


def statements(code):
    """Yields (position, text) of the code between ; and the braces of blocks. Braces within parentheses or after co_await
    belong to expressions and stay, so that co_await F(Agg{1}) is one statement."""
    start = depth = 0
    braces = []
    for match in re.finditer(r"[;{}()]", code):
        c = match.group(0)
        if c == "(":
            depth += 1
        elif c == ")":
            depth = max(0, depth - 1)
        elif c == "{":
            before = code[start : match.start()]
            is_expression = not _BLOCK_BEFORE.search(before) and (depth > 0 or re.search(r"\bco_(await|yield)\b", before))
            if is_expression:
                braces.append(None)
                continue
            braces.append(depth)
            yield start, before
            start, depth = match.end(), 0
        elif c == "}":
            opened = braces.pop() if braces else 0
            if opened is None:
                continue
            yield start, code[start : match.start()]
            start, depth = match.end(), opened
        elif depth == 0:
            yield start, code[start : match.start()]
            start = match.end()


# What stands before the brace of a block, as opposed to that of a temporary: a lambda's or function's head, try, else.
_BLOCK_BEFORE = re.compile(
    r"(^|[;{}])\s*$"
    r"|\)\s*((const|mutable|noexcept|override|final|try)\s*)*(->[^;(){}]*(<[^;{}]*>)?[\s&*]*)?$"
    r"|\](\s*<[^<>]*>)?\s*(mutable\s*|noexcept\s*)*(->[^;(){}]*)?$"
    r"|\b(else|do|try)\s*$"
)


_KEYWORDS = r"return|co_return|co_await|co_yield|throw|delete|new|goto|case|else|if|while|for|switch|do|typename|template"
_DECLARATION = re.compile(
    r"^\s*(?:using\b|static_assert\b|(?:const\s+|constexpr\s+|static\s+)*(?!(?:%s)\b)[A-Za-z_][\w:]*(?:\s*<[^;]*>)?"
    r"(?:\s*[&*]+\s*|\s+)(?:const\s+)?(?:(?!(?:%s)\b)[A-Za-z_]\w*\s*(?:=(?!=)|[;({]|$)|\[))" % (_KEYWORDS, _KEYWORDS)
)


def declares(body):
    """Whether a block of statements, given without its braces, declares something, blocks within it aside."""
    flat, depth = [], 0
    for c in body:
        if c == "{":
            depth += 1
            flat.append("{" if depth == 1 else " ")
        elif c == "}":
            depth -= 1
            flat.append(";" if depth == 0 else " ")
        else:
            flat.append(c if depth == 0 else " ")
    return any(_DECLARATION.match(statement) for statement in re.split(r";|(?<=\))\s*{", "".join(flat)))


def function_around(code, position):
    """The body of the function or lambda that a position is in, or nothing."""
    depth = 0
    for i in range(position - 1, -1, -1):
        if code[i] == "}":
            depth += 1
        elif code[i] == "{" and depth > 0:
            depth -= 1
        elif code[i] == "{":
            head = code[:i].rstrip()
            if head.endswith(")"):
                head = code[: opening(code, len(head) - 1)].rstrip()
            if not re.search(r"(\b(if|constexpr|for|while|switch|catch|else|do|try)|[;{}])$", head):
                return code[i + 1 : closing(code, i)]
    return ""


@rule(".h", ".cc")
def await_in_condition(path, source):
    """g++ 12 miscompiles a co_await in the condition of if, while, for or switch where the function declares nothing: it
    returns nothing, or corrupts the heap. Name the result first, or declare it in the condition."""
    code = source.code
    found = []
    for match in re.finditer(r"\b(if|while|for|switch)\s*\(", code):
        condition = code[match.end() : closing(code, match.end() - 1)]
        if not re.search(r"\bco_await\b", condition) or _DECLARATION.match(condition):
            continue
        if not declares(function_around(code, match.start())):
            found.append(
                (source.line_of(match.start()), "co_await in a condition, which g++ 12 miscompiles: name the result first")
            )
    return found


# Of options that a static_assert says to be trivially destructible, and of what combinators take.
_PLAIN_FIELDS = {"timeout", "metadata", "return_when", "target", "host", "port", "address", "socket", "family", "local_address"}
# Of SubprocessOptions and CommunicateOptions.
_PLAIN_FIELDS |= {"input", "output", "error", "directory", "environment", "new_session", "output_bytes_max"}
# Of ConnectOptions, DatagramOptions, SendfileOptions and HostNameQuery, as far as no options that own have the same.
_PLAIN_FIELDS |= {"local", "remote", "remote_address", "allow_broadcast", "happy_eyeballs_delay", "interleave"}
_PLAIN_FIELDS |= {"offset", "count", "fallback", "numeric_host", "numeric_service", "name_required"}


def _is_plain(initializers):
    """Whether what follows a brace designates only fields of options that own nothing."""
    fields = re.findall(r"(?:^|,)\s*\.(\w+)\s*=", initializers.split("}")[0])
    return bool(fields) and _PLAIN_FIELDS.issuperset(fields)


@rule(".h", ".cc")
def await_of_temporary(path, source):
    """g++ 12 destroys twice a temporary aggregate, or a temporary closure with captures, in an expression that awaits.
    Name it first. Options that own nothing, such as {.timeout = t}, are safe; they are known by their fields."""
    # Once as it is, for what stands in lambdas, and once with their bodies blanked, for what stands around them.
    around = source.code
    for _, _, begin, end in lambdas(source.code):
        around = around[:begin] + re.sub(r"[^\n]", " ", around[begin : end + 1]) + around[end + 1 :]
    found = []
    for position, text in [*statements(source.code), *statements(around)]:
        await_ = re.search(r"\bco_(await|yield)\b", text)
        if not await_:
            continue
        rest = text[await_.start() :]
        where = position + await_.start()
        for match in re.finditer(r"\{", rest):
            before, after = rest[: match.start()].rstrip(), rest[match.end() :].lstrip()
            if before.endswith("=") and re.search(r"[{,]\s*\.\w+\s*=$", before):
                found.append((where + match.start(), "braces within the braces of an awaiting expression: name it first"))
            elif re.search(r"[\w>]$", before) and not re.search(r"\b(mutable|noexcept|else|do|try|const)$", before):
                if not re.search(r"(\)|\])[^(){}]*->[^(){}]*$", before):
                    found.append((where + match.start(), "a braced temporary in an awaiting expression: name it first"))
            elif before.endswith(("(", ",")) and not _is_plain(after):
                found.append((where + match.start(), "a braced temporary in an awaiting expression: name it first"))
        for match in re.finditer(r"[(,]\s*\[([^\]\[]*)\]\s*([({<m]|$)", rest):
            captures = [c.strip() for c in match.group(1).split(",") if c.strip()]
            if any(not c.startswith("&") and c != "this" for c in captures):
                found.append((where + match.start(1), "a closure that captures by value in an awaiting expression: name it first"))
    return [(source.line_of(position), message) for position, message in sorted(set(found))]


@rule(".h", ".cc")
def await_in_operator(path, source):
    """Where an operator decides whether to await: clang miscompiles cond ? co_await a : b, g++ 12 a && co_await b."""
    found = []
    for position, text in statements(source.code):
        match = re.search(r"\s(&&|\|\|)\s[^;]*\bco_await\b", text)
        if match:
            message = "co_await behind %s, which g++ 12 miscompiles: use if" % match.group(1)
            found.append((source.line_of(position + match.start(1)), message))
        match = re.search(r"\?(?:[^?:;]|::)*(?:\bco_await\b|(?<!:):(?!:)(?:[^;,])*\bco_await\b)", text)
        if match:
            found.append((source.line_of(position + match.start()), "co_await in ?:, which clang miscompiles: use if"))
    return found


_LAMBDA = re.compile(r"(?<![\w\])\"])\s*\[(?!\[)([^\[\]]*)\]\s*(?=[({<]|mutable\b)")


def lambdas(code):
    """Yields (position, captures, body start, body end) of each lambda."""
    for match in _LAMBDA.finditer(code):
        i = match.end()
        if i < len(code) and code[i] == "<":
            i = code.find(">", i) + 1
            i += len(code[i:]) - len(code[i:].lstrip())
        if i < len(code) and code[i] == "(":
            i = closing(code, i) + 1
        head = re.compile(r"[^;{}()\[\]]*(\([^()]*\)[^;{}()]*)?").match(code, i)
        i = head.end()
        if i < len(code) and code[i] == "{":
            yield match.start(1), match.group(1).strip(), i, closing(code, i)


# They hold the closure that they are given until its task is done.
_HOLDERS = r"\b(Run|RunMain|RunUntilComplete|Simulate)$"


def is_held(code, begin, end):
    """Whether the lambda is an argument of one of _HOLDERS, and not called on the spot."""
    depth = 0
    for i in range(begin - 2, -1, -1):
        depth += (code[i] in ")}]") - (code[i] in "({[")
        if depth < 0:
            called = code[end + 1 :].lstrip().startswith("(")
            return code[i] == "(" and not called and re.search(_HOLDERS, code[:i].rstrip()[-40:]) is not None
    return False


@rule(".h", ".cc")
def coroutine_lambda(path, source):
    """A lambda that captures must not be a coroutine: the captures live in the closure, which is gone when it resumes.
    Pass parameters, which are copied into the frame. An argument of Run, which holds it so long, may be one, and in a
    test one that has a name: fixtures outlive what runs on their loop."""
    found = []
    everything = list(lambdas(source.code))
    for position, captures, begin, end in everything:
        if not captures:
            continue
        body = source.code[begin : end + 1]
        for _, _, inner_begin, inner_end in everything:
            if begin < inner_begin and inner_end < end:
                inner = slice(inner_begin - begin, inner_end - begin + 1)
                body = body[: inner.start] + re.sub(r"[^\n]", " ", body[inner]) + body[inner.stop :]
        if not re.search(r"\bco_(await|return|yield)\b", body) or is_held(source.code, position, end):
            continue
        if not (_TEST_CODE.search(path) and re.search(r"\w\s*=\s*$", source.code[: position - 1][-40:])):
            found.append((source.line_of(position), "a capturing lambda is a coroutine: its captures die before it does"))
    return found


# --- Errors and logging -----------------------------------------------------------------------------------------------


@rule(".h", ".cc")
def catch_all(path, source):
    """catch (...) rethrows, keeps the exception for whoever awaits it, or has a comment on its line that says where the
    exception goes, such as "reports to the exception handler". Cancelled derives from nothing: a catch-all eats it."""
    found = []
    for match in re.finditer(r"\bcatch\s*\(\s*\.\.\.\s*\)\s*\{", source.code):
        line = source.line_of(match.start())
        body = source.code[match.end() : closing(source.code, match.end() - 1)]
        if re.search(r"\bthrow\s*;|\bcurrent_exception\b|\brethrow_exception\b|\b(abort|terminate)\s*\(", body):
            continue
        if re.search(r"//.*\w\W+\w", source.lines[line - 1]):
            continue
        found.append((line, "catch (...) swallows cancellation: rethrow, or say on the line where the exception goes"))
    return found


@rule(".h")
def log_in_header(path, source):
    """glog's macros collide with others': headers that users read neither log nor include it."""
    found = matches(r"\b(?:[DPV]|SYS)?LOG(?:_IF|_EVERY_N|_FIRST_N|_EVERY_T)?\s*\(", source, "LOG belongs in .cc files")
    return found + matches(r"#\s*include\s*<glog/", source, "glog belongs in .cc files")


# --- The seam ---------------------------------------------------------------------------------------------------------

_BEYOND_THE_SEAM = (
    r"#\s*include\s*<(sys/(epoll|eventfd|timerfd|signalfd|select|time|wait)\.h|poll\.h|netdb\.h|unistd\.h|fcntl\.h|time\.h"
    r"|ctime|random)>"
    r"|\babsl::(Now|SleepFor|BitGen|InsecureBitGen)\b|\b\w+_clock::now\b|\bclock_gettime\b|(?<![\w.>:])(s?rand|random)\s*\("
    r"|\bstd::(random_device|jthread|async)\b|\bstd::thread\b(?!::id)|\bstd::this_thread::(?!get_id\b)"
    r"|(?<![\w>])::(socket|bind|listen|accept4?|connect|shutdown|close|read|write|send|sendto|sendmsg|recv|recvfrom|recvmsg"
    r"|[gs]etsockopt|poll|pipe2?|open|eventfd|getaddrinfo|fork)\s*\("
)


@rule(
    ".h",
    ".cc",
    where=lambda path: path.startswith("framework/")
    and not path.startswith(("framework/os/", "framework/base/"))
    and not _TEST_CODE.search(path),
)
def beyond_the_seam(path, source):
    """Above framework/os, time, sockets, threads and randomness come from troupe::Os, or the simulation has a leak."""
    return matches(_BEYOND_THE_SEAM, source, "goes past troupe::Os: time, sockets, threads and randomness come from it")


# --- Habits -----------------------------------------------------------------------------------------------------------


@rule(".h", ".cc")
def default_capture(path, source):
    """[=] hides what is copied, and copies this."""
    return matches(r"\[\s*=\s*[\],]", source, "[=]: name what is captured")


@rule(".h", ".cc", ".py", ".sh", "")
def sleep(path, source):
    """A wait for time is slow when it works and flaky when it does not: wait for the event."""
    message = "real sleeping: wait for what is awaited"
    if path.endswith((".h", ".cc")):
        return matches(
            r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)\b|(?<![\w.>:])(::)?sleep\s*\(", source, message
        )
    if path.endswith(".py"):
        return matches(r"\btime\.sleep\s*\(", source, message)
    if source.text.startswith("#!"):
        return matches(r"^[^#]*(?<![\w\"'/.-])sleep\s+[\d$\"]", source, message)
    return []


@rule(".h", ".cc")
def disabled_test(path, source):
    """A test that does not run is a test that fails, or none."""
    return matches(r"\bDISABLED_\w|\bGTEST_SKIP\b", source, "a test that does not run")


@rule("")
def unfinished(path, source):
    """What is left to do is an issue, not a comment."""
    return matches(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", source, "left to do: open an issue", code=False)


@rule("")
def machine_path(path, source):
    """A path of one machine."""
    return matches(r"(?<![\w.$}~*\])-])/(work|root|home|Users)/\w", source, "a path of one machine", code=False)


_REGISTRY = (
    r"\b((deb|security|snapshot|ftp)\.debian\.org|archive\.ubuntu\.com|registry\.(npmjs\.org|yarnpkg\.com)|pypi\.org"
    r"|files\.pythonhosted\.org|(proxy|sum)\.golang\.org|(static\.)?crates\.io|(bcr|mirror)\.bazel\.build|rubygems\.org"
    r"|repo1?\.maven\.(apache\.)?org|deb\.nodesource\.com)\b"
)


@rule("")
def registry_host(path, source):
    """Which mirror packages come from is the machine's business."""
    return matches(_REGISTRY, source, "the host of a package registry", code=False)


@rule(".h", where=lambda path: not path.startswith("testing/outside_workspace/"))
def header(path, source):
    """A header begins with a comment that says what it is, and has the guard TROUPE_PATH_OF_FILE_H_; framework/ is left
    out of it, and tools/ may be."""
    found = []
    if not source.text.startswith("//"):
        found.append((1, "a header begins by saying what it is"))
    wanted = "TROUPE_%s_" % re.sub(r"\W", "_", re.sub(r"^framework/", "", path)).upper()
    guard = re.search(r"^#ifndef (\w+)\n#define \1$", source.text, re.MULTILINE)
    if not guard:
        found.append((1, "no include guard %s" % wanted))
    elif guard.group(1) not in (wanted, wanted.replace("TROUPE_TOOLS_", "TROUPE_")):
        found.append((source.line_of(guard.start()), "the guard should be %s" % wanted))
    return found


_THREADS = re.compile(r"\bstd::(thread|jthread|async)\b(?!::id)|\bpthread_create\b|\btroupe/os/posix_os\.h\b")


@rule(".bazel")
def threads_tag(path, source):
    """A test that uses threads says so with tags = ["threads"], and is then run under ThreadSanitizer.

    One whose threads are a library's that ThreadSanitizer cannot see into says "no_tsan" instead.
    """
    found = []
    for match in re.finditer(r"^cc_test\((.*?)^\)", source.text, re.MULTILINE | re.DOTALL):
        if '"threads"' in match.group(1) or '"no_tsan"' in match.group(1):
            continue
        for name in re.findall(r'"([\w/]+\.cc)"', match.group(1)):
            file = os.path.join(source.root, os.path.dirname(path), name)
            if os.path.exists(file):
                with open(file, encoding="utf-8") as text:
                    if _THREADS.search(text.read()):
                        found.append((source.line_of(match.start()), '%s uses threads: tags = ["threads"]' % name))
    return found


@rule(".md")
def dead_link(path, source):
    """A relative link leads to a file."""
    found = []
    for n, line in enumerate(source.lines, 1):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if re.match(r"\w+:", target):
                continue
            if not os.path.exists(os.path.join(source.root, os.path.dirname(path), target)):
                found.append((n, "leads nowhere: " + target))
    return found


@rule(".h", ".cc", ".proto", ".py", ".bzl", ".bazel")
def dead_citation(path, source):
    """A page that a comment names stands in the file's folder, in one above it, or at its path from the root."""
    comment = re.compile(r"//.*" if path.endswith((".h", ".cc", ".proto")) else r"#.*")
    folders = [os.path.dirname(path)]
    while folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    found = []
    for n, line in enumerate(source.lines, 1):
        said = comment.search(line)
        for page in re.findall(r"(?<![\w./<*-])[\w./-]+\.md\b", said.group(0) if said else ""):
            if not any(os.path.exists(os.path.join(source.root, folder, page)) for folder in folders):
                found.append((n, "there is no " + page))
    return found


# --- The tree ---------------------------------------------------------------------------------------------------------

_TEXT = (
    ".h", ".cc", ".c", ".py", ".sh", ".bzl", ".bazel", ".md", ".txt", ".proto", ".js", ".json", ".go", ".cfg", ".golden",
)  # fmt: skip
_NO_TEXT_WALKED = ("node_modules", "testdata")


def is_text(root, path):
    name = os.path.basename(path)
    if name.endswith(_TEXT) or name in ("WORKSPACE", "BUILD", ".bazelrc", ".bazelignore"):
        return True
    if "." in name.lstrip("."):
        return False
    with open(os.path.join(root, path), "rb") as file:
        return file.read(2) == b"#!"


def walk(root):
    """Yields the paths of the tree, without what is ignored or generated."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders
            if f not in (".git",) + _NO_TEXT_WALKED
            and not f.startswith("bazel-")
            and not os.path.islink(os.path.join(folder, f))
        )  # fmt: skip
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root)
            if name not in ("user.bazelrc", "LICENSE"):
                yield path.replace(os.sep, "/")


def check_file(root, path, text):
    """Yields (line, rule, message) for one file."""
    source = Source(path, text)
    source.root = root
    extension = os.path.splitext(path)[1]
    for name, extensions, where, check in _RULES:
        if not (extension in extensions or "" in extensions) or not where(path):
            continue
        for line, message in check(path, source):
            if "NOLINT(troupe-%s): " % name not in source.lines[line - 1]:
                yield line, name, message


def check_readmes(paths):
    """Each folder with a BUILD.bazel has a README.md; below protos/ and in the outside workspace the first one does."""
    present = set(paths)
    for path in paths:
        folder, name = os.path.split(path)
        if name not in ("BUILD.bazel", "WORKSPACE"):
            continue
        readme = re.sub(r"^(protos|testing/outside_workspace)/.*", r"\1", folder)
        wanted = os.path.join(readme, "README.md")
        if wanted not in present:
            yield wanted, 1, "readme", "missing: what lives here, what it may know, where to start reading"


def check_tree(root):
    """Returns all findings as lines of text."""
    found = []
    paths = list(walk(root))
    for path in paths:
        if not is_text(root, path):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            try:
                text = file.read()
            except UnicodeDecodeError:
                continue
        found += ["%s:%d: %s [troupe-%s]" % (path, line, message, name)
                  for line, name, message in sorted(check_file(root, path, text))]  # fmt: skip
    found += ["%s:%d: %s [troupe-%s]" % (path, line, message, name)
              for path, line, name, message in sorted(set(check_readmes(paths)))]  # fmt: skip
    return found, len(paths)


_COROUTINE_RULES = {"await-in-condition", "await-of-temporary", "await-in-operator", "coroutine-lambda", "catch-all"}


def check_coroutines(paths):
    """Exit code: 1 if one of the files has a finding."""
    found = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for line, name, message in sorted(check_file("", path, text)):
            if name in _COROUTINE_RULES:
                print("%s:%d: %s [troupe-%s]" % (path, line, message, name))
                found += 1
    print("%d files, %d findings" % (len(paths), found))
    return 1 if found else 0


def main(argument):
    root = os.path.realpath(argument)
    while not os.path.isfile(os.path.join(root, "WORKSPACE")):  # a file of the tree, seen through a link of Bazel's
        if root == os.path.dirname(root):
            sys.exit("lint.py: no WORKSPACE above " + os.path.realpath(argument))
        root = os.path.dirname(root)
    found, files = check_tree(root)
    for line in found:
        print(line)
    print("%d files, %d findings" % (files, len(found)))
    return 1 if found or files < 10 else 0


if __name__ == "__main__":
    sys.exit(check_coroutines(sys.argv[2:]) if sys.argv[1] == "--coroutines" else main(sys.argv[1]))
