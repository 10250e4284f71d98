"""Reads `cargo metadata`; fails where a dependency has no licence that this project can live with."""
import json
import re
import sys

ACCEPTED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}

def accepted(expression):
    tokens = re.findall(r"\(|\)|[\w.+-]+(?: WITH [\w.-]+)?", expression.replace("/", " OR "))
    words = {"OR": "or", "AND": "and", "(": "(", ")": ")"}
    return eval(" ".join(words.get(token, str(token in ACCEPTED)) for token in tokens))

packages = json.load(sys.stdin)["packages"]
refused = [p for p in packages if not p["license"] or not accepted(p["license"])]
for package in refused:
    print(f'{package["name"]} {package["version"]}: {package["license"]}')
print(f"{len(packages)} packages, {len(refused)} refused")
sys.exit(bool(refused))
