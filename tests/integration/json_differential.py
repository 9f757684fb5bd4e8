#!/usr/bin/env python3
"""Compare what our JSON parser accepts with Node's JSON.parse, or else with Python's json, over
texts made from a seed, and what the fuzzer found: JSON_SEED=n python3 tests/integration/json_differential.py [COUNT].

Legitimate differences, told apart by our message: we refuse duplicate keys, nesting past 64
levels and lone surrogate escapes; texts that are not UTF-8 are not compared with Node, whose strings
cannot hold them."""
import json, os, random, shutil, struct, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", "build")
PROGRAM = os.path.join(BUILD, "tests/drive/json_accepts")
SEED = int(os.environ.get("JSON_SEED", "20261123"))
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 60000
OURS = ("duplicate key", "nested deeper", "surrogate alone", "not UTF-8")

ATOMS = ['0', '-0', '1', '-1', '12', '1.5', '1e5', '1E+5', '1e-5', '01', '1.', '.5', '+1', '-', '1e', '0x1', 'NaN',
         'Infinity', '-Infinity', 'true', 'false', 'null', 'True', 'nul', 'undefined', '""', '"a"', '"\\n"', '"\\u0041"',
         '"\\ud83d\\ude00"', '"\\ud800"', '"\\x"', '"\\u12"', "'a'", '"\t"', '"\x7f"', '"é"', '"\u2028"', '[]', '{}', '9' * 30,
         '1e400', '"', '\\', '"\\', '\ufeff', '\u00a0', '\x00', '/**/', '//', ',', ':', '[', ']', '{', '}']
SPACES = ['', '', '', ' ', '\n', '\t', '\r', '  ', '\f', '\v', '\u2003']


def value(rng, depth):
    kind = rng.random()
    space = lambda: rng.choice(SPACES) if rng.random() < 0.03 else rng.choice(SPACES[:8])
    if depth > 4 or kind < 0.45:
        return rng.choice(ATOMS if rng.random() < 0.06 else ATOMS[:9] + ATOMS[19:22] + ATOMS[25:30])
    if kind < 0.7:
        return '[' + ','.join(space() + value(rng, depth + 1) + space() for _ in range(rng.randrange(5))) + ']'
    keys = ['"%s"' % rng.choice('abcdefgh') * 1 if rng.random() < .3 else '"k%d"' % rng.randrange(1000) for _ in range(rng.randrange(5))]
    return '{' + ','.join(space() + k + space() + ':' + space() + value(rng, depth + 1) for k in keys) + '}'


def mutate(rng, text):
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        at = rng.randrange(len(text) + 1)
        how = rng.randrange(4)
        if how == 0: text = text[:at] + rng.choice(ATOMS) + text[at:]
        elif how == 1: text = text[:at] + text[at + 1:]
        elif how == 2: text = text[:at] + chr(rng.choice([rng.randrange(128), rng.randrange(0x800)])) + text[at + 1:]
        else: text = text[:at]
    return text


def texts():
    rng = random.Random(SEED)
    out = list(ATOMS) + ['[' * 64 + ']' * 64, '[' * 65 + ']' * 65]
    while len(out) < COUNT:
        out.append(mutate(rng, value(rng, 0)))
    return out


FOUND_MAX = 20000


def found():
    """What the fuzzer has found on its way through the parser, and its corpus: bytes."""
    out = []
    for folder in ('tests/fuzz/corpus/json', 'tests/fuzz/corpus/append_body', 'build/fuzz/corpus/fuzz_json'):
        folder = os.path.join(ROOT, folder)
        for name in sorted(os.listdir(folder) if os.path.isdir(folder) else [])[:FOUND_MAX]:
            with open(os.path.join(folder, name), 'rb') as file:
                out.append(file.read(1 << 16))
    return out


def ask_us(all_texts):
    data = b''.join(struct.pack('<I', len(t)) + t for t in all_texts)
    done = subprocess.run([PROGRAM], input=data, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode('utf-8', 'replace').split('\n')[:-1]
    return [(line[0] == '1', line[2:]) for line in lines]


NODE = r'''
let text = require("fs").readFileSync(0), at = 0, out = [];
while (at < text.length) {
  const size = text.readUInt32LE(at); at += 4;
  const one = text.subarray(at, at + size).toString("utf8"); at += size;
  try { JSON.parse(one); out.push("1"); } catch { out.push("0"); }
}
console.log(out.join(""));
'''


def ask_node(all_texts):
    data = b''.join(struct.pack('<I', len(t)) + t for t in all_texts)
    done = subprocess.run(['node', '-e', NODE], input=data, stdout=subprocess.PIPE, check=True)
    return [c == '1' for c in done.stdout.decode().strip()]


def ask_python(all_texts):
    def refuse(name): raise ValueError(name)
    out = []
    for t in all_texts:
        try:
            json.loads(t.decode('utf-8'), parse_constant=refuse)
            out.append(True)
        except (ValueError, RecursionError):
            out.append(False)
    return out


def main():
    if not os.path.exists(PROGRAM):
        print('skipped: %s is not built' % PROGRAM)
        return 77
    encoded = [t.encode('utf-8', 'replace') for t in texts()] + found()
    ours = ask_us(encoded)
    who = 'node' if shutil.which('node') else 'python'
    theirs = ask_node(encoded) if who == 'node' else ask_python(encoded)
    assert len(ours) == len(theirs) == len(encoded)
    wrong = known = 0
    for text, (accepted, message), other in zip(encoded, ours, theirs):
        if accepted == other: continue
        if other and any(word in message for word in OURS):
            known += 1
            continue
        wrong += 1
        if wrong <= 10:
            print('%s %s, we %s: %r %s' % (who, 'accepts' if other else 'refuses', 'accept' if accepted else 'refuse', text, message))
    accepted = sum(1 for a, _ in ours if a)
    print('%d texts (seed %d), %d accepted, %d known differences from %s, %d wrong' % (len(encoded), SEED, accepted, known, who, wrong))
    if accepted < len(encoded) // 10 or accepted > len(encoded) * 9 // 10:
        print('the texts are too one-sided to show anything')
        return 1
    return 1 if wrong else 0


sys.exit(main())
