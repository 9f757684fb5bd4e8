#!/usr/bin/env python3
"""Check that the source keeps the house's structure: DESIGN's layers, system calls in one place,
modules that explain themselves, functions that fit on a screen.

    python3 tests/structure/check.py            check the repository
    python3 tests/structure/check.py --names    list each rule and what it says

Each rule first proves itself on a planted violation: a rule that finds nothing there is broken."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Which folders a folder may include from, besides itself. include/ is open to all.
LAYERS = {
    "base": [],
    "os": ["base"],
    "json": ["base"],
    "http1": ["base"],
    "http2": ["base"],
    "grpc": ["base"],
    "log": ["base", "os", "json"],
    "index": ["base", "os", "json", "log"],
    "store": ["base", "os", "json", "log", "index"],
    "groups": ["base", "os", "json", "log", "index", "store"],
    "projection": ["base", "os", "json", "log", "index", "store"],
    "domain": ["base", "os", "json", "log", "index", "store"],
}
LAYERS["query"] = LAYERS["domain"] + ["projection", "domain"]
LAYERS["embed"] = LAYERS["query"] + ["query"]
LAYERS["api"] = LAYERS["query"] + ["query", "embed", "groups", "http1", "http2", "grpc", "proto"]
# proto/ is what the build makes of src/grpc/proto.
LAYERS["grpc"] += ["proto"]
LAYERS["server"] = LAYERS["api"] + ["api"]
LAYERS["cli"] = LAYERS["server"] + ["server"]

# The engine: one thread in the simulator, so no system call of its own. The server's libuv and the
# cli's curl are outside (DESIGN, section 3).
ENGINE = ["base", "json", "http1", "http2", "grpc", "log", "index", "store", "groups",
          "projection", "domain", "query", "embed", "api"]
LIBRARY = ENGINE + ["os"]

SYSTEM_HEADERS = re.compile(
    r"^(fcntl|unistd|pthread|dirent|signal|poll|spawn|threads|sched|termios|netdb|syslog"
    r"|sys/.*|linux/.*|netinet/.*|arpa/.*)\.h$")

SYSTEM_CALLS = re.compile(
    r"(?<![\w.>])(open|openat|creat|close|read|write|pread|pwrite|readv|writev|lseek|ftruncate|truncate"
    r"|fsync|fdatasync|fallocate|posix_fallocate|rename|renameat|unlink|unlinkat|mkdir|mkdirat|rmdir"
    r"|opendir|fdopendir|readdir|stat|fstat|lstat|fstatat|mmap|munmap|mprotect|flock|fcntl|ioctl"
    r"|clock_gettime|gettimeofday|time|nanosleep|clock_nanosleep|usleep|sleep|alarm"
    r"|getrandom|rand|random|srand|arc4random|getenv|setenv|setrlimit"
    r"|fork|vfork|execv|execve|execvp|posix_spawn|waitpid|wait|kill|raise|signal|sigaction|pipe|pipe2"
    r"|socket|socketpair|bind|listen|accept|connect|send|recv|sendmsg|recvmsg|poll|select|epoll_\w+"
    r"|pthread_\w+|thrd_\w+|mtx_\w+|cnd_\w+|fopen|fdopen|fread|fwrite|fclose|system|popen|syscall)\s*\(")

# Printing and ending the process are the program's, not the library's. abort stays: for what only
# our bug, or a machine without SHA-256, can bring about.
OUTPUT_CALLS = re.compile(r"(?<![\w.>])(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror"
                          r"|exit|_exit|quick_exit|atexit|warn|warnx|err|errx|syslog)\s*\(")

# What may stand where a rule forbids it: (file, what, why). The reason is for the reader.
EXCEPTIONS = [
    ("src/base/hash.c", r"pthread\.h|pthread_(once|key_create|getspecific|setspecific)",
     "one SHA-256 context a thread: thread-local storage, no system call"),
    ("src/domain/worker*.[ch]", r".*", "the worker is a process of its own: pipes, limits, signals"),
    ("src/os/process.c", r"_exit", "a child that could not become the worker has nothing else to do"),
]

FUNCTION_LINES_MAX = 80
# clang-format holds code at 100. A comment's picture or a last word may stand out a little; what is
# over this wraps in a review.
COLUMNS_MAX = 110
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "common", "stuff", "shared"}


def excepted(path, what):
    from fnmatch import fnmatch
    return any(fnmatch(path, where) and re.fullmatch(pattern, what) for where, pattern, _ in EXCEPTIONS)


def without_comments_and_strings(text):
    """The same text, same lines, with comments and literals blanked."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def layer_of(path):
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "src" else None


def is_c(path):
    return path.endswith((".c", ".h"))


def matches(pattern, text):
    """Line number and group 1 of each match."""
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group(1)


# ---- the rules: each yields (path, line, message) --------------------------------------------

def layers_point_one_way(files):
    """src/<layer> includes only from layers to its left"""
    for path, text in files.items():
        layer = layer_of(path)
        if layer is None or not is_c(path):
            continue
        if layer not in LAYERS:
            yield path, 1, f"folder src/{layer} is no layer of the design"
            continue
        for line, name in matches(re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M), text):
            target = name.split("/")[0] if "/" in name else None
            if target is None:
                if not name.startswith("deedbook"):
                    yield path, line, f'"{name}": write the path from src/, "layer/{name}"'
            elif target != layer and target not in LAYERS[layer]:
                yield path, line, f"{layer} must not include from {target}: \"{name}\""


def only_os_makes_system_calls(files):
    """file, clock, thread and process calls stay in src/os (server and cli aside)"""
    for path, text in files.items():
        if layer_of(path) not in ENGINE or not is_c(path):
            continue
        for line, name in matches(re.compile(r"^\s*#\s*include\s+<([^>]+)>", re.M), text):
            if SYSTEM_HEADERS.match(name) and not excepted(path, name):
                yield path, line, f"<{name}> belongs to src/os"
        own = set(re.findall(r"^static [^;{}=]*?(\w+)\(", text, re.M))
        for line, name in matches(SYSTEM_CALLS, without_comments_and_strings(text)):
            if name not in own and not excepted(path, name):
                yield path, line, f"{name}() belongs to src/os"


def libraries_do_not_print_or_exit(files):
    """library code never prints, logs or exits"""
    for path, text in files.items():
        if layer_of(path) not in LIBRARY or not is_c(path):
            continue
        for line, name in matches(OUTPUT_CALLS, without_comments_and_strings(text)):
            if not excepted(path, name):
                yield path, line, f"{name}() in library code"


def modules_explain_themselves(files):
    """each file opens with a comment: its name, a dash, what it is"""
    for path, text in files.items():
        if layer_of(path) is None and not path.startswith("include/") or not is_c(path):
            continue
        name = os.path.basename(path)
        if not re.match(r"/\* " + re.escape(name) + r" - \S", text):
            yield path, 1, f'does not open with "/* {name} - what it is"'


def modules_have_a_header(files):
    """each .c has a header of its name, of the name it extends, or one beside it that names it"""
    for path in files:
        layer = layer_of(path)
        # One file a subcommand: its interface is its row in the table of subcommands. And the
        # library's face has the public header.
        if layer in (None, "cli", "embed") or not path.endswith(".c"):
            continue
        folder, stem = os.path.dirname(path), os.path.basename(path)[:-2]
        stems = [stem[:at] for at in range(len(stem), 0, -1) if at == len(stem) or stem[at] == "_"]
        extends = any(f"{folder}/{s}.h" in files for s in stems)
        beside = [text for p, text in files.items() if os.path.dirname(p) == folder and p.endswith(".h")]
        if not extends and not any(re.search(rf"\b{stem}\.c\b", text) for text in beside):
            yield path, 1, f"has no header {stem}.h, and no header beside it says what {stem}.c is"


def functions_fit_on_a_screen(files):
    """functions of at most 80 lines, or a comment above that says "long because" """
    for path, text in files.items():
        if not path.startswith(("src/", "tests/", "bench/", "examples/")) or not path.endswith(".c"):
            continue
        lines = without_comments_and_strings(text).split("\n")
        original = text.split("\n")
        begin = None
        for number, line in enumerate(lines):
            if line == "{":
                begin = number
            elif line.rstrip() == "}" and begin is not None:
                size = number - begin + 1
                reason = "long because" in " ".join(original[max(0, begin - 12):begin]).lower()
                if size > FUNCTION_LINES_MAX and not reason:
                    yield path, begin + 1, f"function of {size} lines, limit {FUNCTION_LINES_MAX}"
                begin = None


def names_say_something(files):
    """no file is called utils, helpers, misc or common"""
    for path in files:
        stem = os.path.basename(path).split(".")[0].lower()
        if VAGUE_NAMES & set(re.split(r"[_-]", stem)) and path.startswith(("src/", "include/")):
            yield path, 1, "a vague name: say what it does"


def layout_is_plain(files):
    """at most 110 columns, no tabs, no spaces at the end of a line"""
    for path, text in files.items():
        if not is_c(path) or not path.startswith(("src/", "include/", "tests/", "bench/", "examples/")):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > COLUMNS_MAX:
                yield path, number, f"{len(line)} columns, limit {COLUMNS_MAX}"
            if "\t" in line:
                yield path, number, "a tab"
            if line != line.rstrip():
                yield path, number, "spaces at the end of the line"


def nothing_is_left_for_later(files):
    """no TODO, FIXME, XXX in what is built"""
    for path, text in files.items():
        if not is_c(path) or not path.startswith(("src/", "include/")):
            continue
        for line, word in matches(re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), text):
            yield path, line, f"{word}: do it, or open an issue"


HEAD = "/* x.c - a planted file. */\n"
RULES = {
    layers_point_one_way: {"src/log/x.c": HEAD + '#include "store/store.h"\n'},
    only_os_makes_system_calls: {"src/log/x.c": HEAD + "void f(void)\n{\n    fd = open(name, 0);\n}\n"},
    libraries_do_not_print_or_exit: {"src/log/x.c": HEAD + 'void f(void)\n{\n    printf("x");\n}\n'},
    modules_explain_themselves: {"src/log/x.c": "/* what is this? */\n"},
    modules_have_a_header: {"src/log/x_y.c": HEAD, "src/log/y.h": HEAD},
    functions_fit_on_a_screen: {"src/log/x.c": HEAD + "void f(void)\n{\n" + "    g();\n" * 80 + "}\n"},
    names_say_something: {"src/log/log_utils.c": HEAD},
    layout_is_plain: {"src/log/x.c": HEAD + "int x; \n"},
    nothing_is_left_for_later: {"src/log/x.c": HEAD + "/* " + "TO" + "DO: later */\n"},
}

# What looks like a violation and is none.
HARMLESS = {
    "src/log/x.c": HEAD + '#include "log/x.h"\n#include "os/os.h"\n#include "deedbook.h"\n#include <stdio.h>\n'
                   "/* open(2) is os's */\nvoid f(void)\n{\n    os_file_read(f); s->read(s); s.write(s);\n"
                   '    (void)snprintf(text, 4, "open(");\n}\n',
    "src/log/x.h": "/* x.h - a planted header. */\n",
    "src/log/x_more.c": "/* x_more.c - extends x. */\n",
}


def prove_rules():
    broken = [rule.__name__ for rule, planted in RULES.items() if not list(rule(planted))]
    broken += [f"{rule.__name__} (finds {found})" for rule in RULES for found in rule(HARMLESS)]
    return broken


def load():
    files = {}
    for top in ("src", "include", "tests", "bench", "examples"):
        for folder, _, found in os.walk(os.path.join(ROOT, top)):
            for name in found:
                path = os.path.join(folder, name)
                if is_c(path):
                    with open(path, encoding="utf-8") as file:
                        files[os.path.relpath(path, ROOT)] = file.read()
    return files


def main():
    if "--names" in sys.argv:
        for rule in RULES:
            print(f"{rule.__name__}: {rule.__doc__.strip()}")
        return 0
    broken = prove_rules()
    for name in broken:
        print(f"tests/structure/check.py: rule {name} is broken")
    files = load()
    found = [(rule, hit) for rule in RULES for hit in sorted(rule(files))]
    for rule, (path, line, message) in found:
        print(f"{path}:{line}: {message}  [{rule.__name__}]")
    print(f"{len(files)} files, {len(RULES)} rules, {len(found)} violations")
    return 1 if broken or found else 0


if __name__ == "__main__":
    sys.exit(main())
