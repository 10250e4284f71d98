"""Prints the block of a guide that is marked so, as in ```nginx http, with its places replaced.

    guide.py docs/guides/reverse-proxies.md 'nginx http' OLD=NEW...

Each OLD has to be in the block: a guide that has changed is noticed.
"""
import re, sys

path, mark, *changes = sys.argv[1:]
block = re.search(rf"^```{re.escape(mark)}\n(.*?)^```$", open(path).read(), re.M | re.S)
if not block:
    sys.exit(f"{path} has no block '{mark}'")
text = block[1]
for change in changes:
    old, new = change.split("=", 1)
    if old not in text:
        sys.exit(f"the block '{mark}' of {path} does not have '{old}'")
    text = text.replace(old, new)
print(text, end="")
