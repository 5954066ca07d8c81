"""Salesforce ids: 15 base-62 characters, or 18 with three of checksum (reference 3.5)."""
import re

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # in ASCII order, so ids sort by age
SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
SHAPE = re.compile(r"[0-9A-Za-z]{15}(?:[A-Z0-5]{3})?\Z")
POD = "fs"


def suffix(fifteen):
    out = ""
    for group in (fifteen[0:5], fifteen[5:10], fifteen[10:15]):
        bits = 0
        for i, char in enumerate(group):
            if "A" <= char <= "Z":
                bits |= 1 << i
        out += SUFFIX[bits]
    return out


def make(prefix, number):
    """The number'th id of an object."""
    digits = ""
    while number:
        number, rest = divmod(number, 62)
        digits = ALPHABET[rest] + digits
    fifteen = (prefix + POD).ljust(15 - len(digits), "0") + digits
    return fifteen + suffix(fifteen)


def normal(text):
    """The 18-character form, or None if the text is no id (wrong length, characters, checksum)."""
    if not isinstance(text, str) or not SHAPE.match(text):
        return None
    if len(text) == 15:
        return text + suffix(text)
    return text if suffix(text[:15]) == text[15:] else None
