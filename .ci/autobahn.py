"""Makes docs/CONFORMANCE.md out of the reports of the Autobahn test suite; fails where a case has not passed.

    autobahn.py SERVER/index.json CLIENT/index.json
"""
import json, sys

SECTIONS = {
    "1": "Framing: text and binary messages up to 64 KiB",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Close",
    "9": "Messages up to 16 MiB, in frames of every size",
    "10": "Automatic fragmentation",
}
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

def key(case):
    return [int(part) for part in case.split(".")]

def column(cases):
    good = sum(case["behavior"] == "OK" for case in cases)
    others = {}
    for case in cases:
        if case["behavior"] != "OK":
            others[case["behavior"]] = others.get(case["behavior"], 0) + 1
    text = ", ".join([f"{good} passed"] + [f"{count} {name.lower()}" for name, count in sorted(others.items())])
    return text

ends = []
for path, agent in zip(sys.argv[1:], ["server", "sheetbend"]):
    ends.append(json.load(open(path))[agent])

print("""# Conformance of the WebSocket

The cases of the [Autobahn test suite](https://github.com/crossbario/autobahn-testsuite) with each end of ours
(`core/examples/websocket_echo.rs`). `.ci/interop` runs them, and compares what comes of it with this page. Sections 12
and 13 are about compression, which is not spoken (PROTOCOL 14.2).

| section | | cases | our server | our client |
|---|---|---|---|---|""")
bad = []
totals = [0, 0]
for section, title in SECTIONS.items():
    names = sorted((name for name in ends[0] if name.split(".")[0] == section), key=key)
    cells = []
    for index, end in enumerate(ends):
        cases = [end[name] for name in names]
        cells.append(column(cases))
        totals[index] += len(cases)
        bad += [(index, name, end[name]) for name in names
                if end[name]["behavior"] not in GOOD or end[name]["behaviorClose"] not in GOOD]
    print(f"| {section} | {title} | {len(names)} | {' | '.join(cells)} |")
print(f"| | all | {totals[0]} | | |")
others = sorted({(name, case["behavior"]) for end in ends for name, case in end.items()
                 if case["behavior"] in {"NON-STRICT", "INFORMATIONAL"}}, key=lambda one: key(one[0]))
if others:
    print("\nNot strict, or only for information: " + ", ".join(f"{name} ({how.lower()})" for name, how in others) + ".")
if totals[0] != totals[1]:
    sys.exit("the ends have not had the same cases")
for index, name, case in bad:
    print(f"{['server', 'client'][index]}: case {name}: {case['behavior']}, close {case['behaviorClose']}", file=sys.stderr)
if bad:
    sys.exit(1)
