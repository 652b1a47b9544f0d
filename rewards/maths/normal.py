"""An answer made ready for comparison: clauses, prefixes, names of functions and moduli go.

Examples: "x = 5 for all n" is "x = 5", "5 (owls)" is "5 owls", "9 to 7" is "9:7", "p(x) = 2x" is
"2x" where the reference names no function.
"""

import re
from functools import lru_cache

from rewards.maths.spelling import plain, strip_group
from rewards.maths.units import known_unit

_PREFIX = re.compile(r"(?:\\approx|\\therefore|\\implies|\\Rightarrow|=|:)\s*")
_CLAUSE = re.compile(r"\s(?:for (?:all|any|every|each|some)|where)\s.*", re.DOTALL)
_COUNTED = re.compile(r"(?<=[0-9])\s+\(([A-Za-z][A-Za-z/ ]*[A-Za-z])\)")  # 5 (owls)
_UNIT_OF_ITEM = re.compile(
    r"(?<=[0-9])\s+([A-Za-z]+(?:/[A-Za-z]+|\s+old)?)(?=\s*(?:[,;)]|and\b|$))"
)
_MIXED = re.compile(r"^([0-9]+) and ([0-9]+\s*/\s*[0-9]+)$")
_MODULUS = re.compile(r"\s*\(?\s*\\?p?mod\s*\{?\s*[0-9]+\s*\}?\s*\)?$")
_REMARK = re.compile(r"\s*\((?:i\.e\.|that is|which is|about|approximately|\\approx)[^()]*\)$")
_VERDICT = re.compile(
    r"\s+is (?:the )?(?:larger|smaller|greater|bigger|less|largest|smallest|greatest|least)\b.*$"
)
_LETTER = re.compile(r"\(\s+([A-P])\s+\)")
_OUTWARD = re.compile(r"^([\[\](])([^\[\](){}]*,[^\[\](){}]*)([\[\])])$")
_RATIO = re.compile(r"(?<=[0-9])\s+to\s+(?=[0-9])")
_INDEXED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])\s*_\s*\{?\s*[0-9]\s*\}?\s*=")
_FUNCTION = re.compile(
    r"(?:\\frac\s*\{\s*\w[\w{}]*\(\w\)\s*\}\s*\{\s*\w[\w{}]*\(\w\)\s*\}|[A-Za-z](?:_\{?\w{1,3}\}?)?'*(?:\s*\^\s*\{?\s*-\s*1\s*\}?)?\s*\(\s*[A-Za-z]\s*\))\s*=(?=[^=]*$)"
)
_OF_TIME = re.compile(r"([A-Za-z]'*)\s*\(\s*[tx]\s*\)")  # x'(t) = k x(t)
_FONT = r"\\(?:mathbf|hat|vec|boldsymbol|bm)\s*"
_VECTOR = re.compile(
    rf"{_FONT}\{{\s*{_FONT}\{{\s*([ijk])\s*\}}\s*\}}|{_FONT}\{{\s*\\?([ijk])(?:math\b)?\s*\}}"
)


def as_tuple(text: str) -> str:
    r"""A sum of unit vectors as a tuple: \mathbf{i} - 4\mathbf{k} as (1, 0, -4); else `text`."""
    names = {match[1] or match[2] for match in _VECTOR.finditer(text)}
    if not names:
        return text
    axes = "ijk" if "k" in names else "ij"
    return f"({', '.join(_component(text, axis) for axis in axes)})"


def _component(text: str, axis: str) -> str:
    """The text with this unit vector as one and the others as zero, as fractions: 4(1) is none."""
    return _VECTOR.sub(lambda m: "\\frac{1}{1}" if (m[1] or m[2]) == axis else "\\frac{0}{1}", text)


@lru_cache(maxsize=256)
def spelled(text: str) -> str:
    """An answer in the one spelling, without what is not part of its value."""
    text = strip_group(plain(text))
    prefix = _PREFIX.match(text)
    text = text[prefix.end() :] if prefix else text
    text = _OUTWARD.sub(_inward, text)
    if " " not in text:
        return text
    text = _COUNTED.sub(_counted, _CLAUSE.sub("", text))
    units = {match[1] for match in _UNIT_OF_ITEM.finditer(text)}
    if "," in text or ";" in text or (" and " in text and len(units) == 1):
        text = _UNIT_OF_ITEM.sub(lambda m: "" if known_unit(m[1]) else m[0], text)
    text = _VERDICT.sub("", _REMARK.sub("", _MIXED.sub(r"\1 \2", text)))
    text = _LETTER.sub(r"(\1)", text)
    if "\\equiv" not in text:
        text = _MODULUS.sub("", text)
    return _RATIO.sub(":", text) if _RATIO.search(text) and text[-1].isdigit() else text


def different_units(reference: str, answer: str) -> bool:
    """True if both are lists with units, "3 cm, 4 cm" and "3 m, 4 m", and these are not the same."""
    if not ({",", ";"} & set(reference) and {",", ";"} & set(answer)):
        return False
    found = []
    for text in (reference, answer):
        units = [known_unit(match[1]) for match in _UNIT_OF_ITEM.finditer(plain(text))]
        found.append([unit for unit in units if unit])
    return bool(found[0] and found[1]) and sorted(found[0]) != sorted(found[1])


def _inward(match: re.Match[str]) -> str:
    """]a, b[ as (a, b)."""
    ends = {"]": "("}.get(match[1], match[1]), {"[": ")"}.get(match[3], match[3])
    return ends[0] + match[2] + ends[1]


def _counted(match: re.Match[str]) -> str:
    return "\u00b0" if match[1] == "degrees" else f" {match[1]}"


def without_names(a: str, b: str) -> tuple[str, str]:
    """Both without "p(x) =" where the other does not say it, or says the same."""
    first, second = _FUNCTION.match(a), _FUNCTION.match(b)
    if first and second:
        same_name = first[0].replace(" ", "") == second[0].replace(" ", "")
        return (a[first.end() :], b[second.end() :]) if same_name else (a, b)
    if first and re.match(r"y\s*=(?=[^=]*$)", b):
        return a[first.end() :].strip(), b[b.index("=") + 1 :]
    if second and re.match(rf"{b[0]}\s*=", a):
        return a[a.index("=") + 1 :], b[second.end() :].strip()
    if first and "=" not in b:
        return a[first.end() :].strip(), b
    if second and "=" not in a:
        return a, b[second.end() :].strip()
    if "\\equiv" in b and "mod" in b and "\\equiv" not in a:
        b = _MODULUS.sub("", b).rpartition("\\equiv")[2].strip()
    if "'" in b and "(" not in a:
        b = _OF_TIME.sub(r"\1", b)
    if "_" not in a:
        b = _INDEXED.sub(r"\1=", b)
    return a, b
