r"""One spelling for an answer: math mode, fonts, spacing, Unicode and synonyms written one way.

`plain` keeps the meaning and drops what LaTeX says about looks, so that the readers of numbers,
expressions and sets see few forms. Every step is linear in the text.
"""

import re

_UNICODE = {
    "\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-", "\u2010": "-", "\u2011": "-",
    "\u00d7": "\\times ", "\u00f7": "\\div ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u2248": "\\approx ",
    "\u221e": "\\infty ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ",
    "\u00b1": "\\pm ", "\u2213": "\\mp ", "\u2032": "'", "\u2044": "/", "\u2215": "/",
    "\u211d": "\\reals ", "\u2205": "\\emptyset ", "\u2216": "\\setminus ",
    "\u230a": "\\lfloor ", "\u230b": "\\rfloor ", "\u2308": "\\lceil ", "\u2309": "\\rceil ",
    "\u27e8": "(", "\u27e9": ")", "\u03c0": "\\pi ", "\u03b8": "\\theta ", "\u03b1": "\\alpha ",
    "\u03b2": "\\beta ", "\u03b3": "\\gamma ", "\u03bb": "\\lambda ", "\u03c6": "\\phi ",
    "\u03c9": "\\omega ", "\u03bc": "\\mu ", "\u03c1": "\\rho ", "\u03c3": "\\sigma ",
    "\u03c4": "\\tau ", "\u03b4": "\\delta ", "\u0394": "\\Delta ", "\u03b5": "\\epsilon ",
    "\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u2153": " 1/3", "\u2154": " 2/3",
    "\u00a2": " cents", "\u2155": " 1/5", "\u2156": " 2/5", "\u2157": " 3/5", "\u2158": " 4/5", "\u2159": " 1/6",
    "\u215a": " 5/6", "\u215b": " 1/8", "\u215c": " 3/8", "\u215d": " 5/8", "\u215e": " 7/8",
    "\u2019": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2061": "", "\u200b": "",
}  # fmt: skip
_SUPERSCRIPTS = dict(
    zip(
        "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b",
        "0123456789-",
        strict=True,
    )
)
_SUBSCRIPTS = dict(
    zip("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789", strict=True)
)
_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width ASCII
_TABLE = str.maketrans(_WIDE | _UNICODE)
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")

_SYNONYMS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom",
    "tbinom": "\\binom", "leq": "\\le ", "leqslant": "\\le ", "geq": "\\ge ", "geqslant": "\\ge ",
    "neq": "\\ne ", "lt": "<", "gt": ">", "lbrace": "\\{", "rbrace": "\\}", "langle": "(",
    "rangle": ")", "vert": "|", "mid": "|", "lvert": "|", "rvert": "|", "colon": ":",
    "lbrack": "[", "rbrack": "]", "R": "\\reals ", "backslash": "\\setminus ",
    "varnothing": "\\emptyset ", "degree": "\u00b0", "circ": "\u00b0", "thickapprox": "\\approx ",
    "simeq": "\\approx ", "exp": "\\exp ", "imath": "i", "lor": " or ", "vee": " or ",
    "wedge": " and ", "land": " and ", "arcsinh": "\\arcsinh ", "AA": " \u00e5", "dots": "\\dots ", "ldots": "\\dots ",
}  # fmt: skip
_DROPPED = frozenset(
    [
        "left",
        "right",
        "big",
        "Big",
        "bigg",
        "Bigg",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "biggl",
        "biggr",
        "middle",
        "displaystyle",
        "textstyle",
        "limits",
        "quad",
        "qquad",
        "boxed",
        "fbox",
        "enspace",
        "thinspace",
        "hfill",
        "rm",
        "bf",
        "it",
    ]
)
_FONTS = frozenset(
    [
        "text",
        "mbox",
        "textrm",
        "textbf",
        "textit",
        "textnormal",
        "mathrm",
        "mathbf",
        "mathit",
        "mathsf",
        "boldsymbol",
        "operatorname",
        "textsf",
        "texttt",
        "emph",
        "bm",
    ]
)
_COMMAND = re.compile(r"\\([A-Za-z]+)(\*?)")
_IN_FONT = re.compile(rf"\\(?:{'|'.join(sorted(_FONTS))})\s*\{{([^{{}}]*)\}}")
_REALS = re.compile(
    r"\\(?:mathbb|Bbb|mathbf)\s*(?:\{\s*R\s*\}|R\b)|\ball real numbers\b|\ball reals\b", re.I
)
_DEGREE = re.compile(r"\^\s*(?:\{\s*\u00b0\s*\}|\u00b0)")
_PRIME = re.compile(r"\^\s*(?:\{\s*\\prime\s*\}|\\prime)")
_DERIVATIVE = re.compile(
    r"\\[dt]?frac\s*\{\s*d\s*([a-zA-Z])\s*\}\s*\{\s*d\s*t\s*\}|\\dot\s*(?:\{\s*)?([a-zA-Z])(?:\s*\})?"
)
_MICRO = re.compile(r"\\mu\s*(?:\\(?:text|mathrm)\s*\{\s*([mgsFC])\s*\}|([mgsFC])\b)")
_RECURRING = re.compile(
    r"(?<![0-9])([0-9]{1,50})\.([0-9]{0,50})\\(?:overline|bar)\s*\{([0-9]{1,50})\}"
)
_TO_A_POWER = re.compile(r"\s+\^")
_THIN_THOUSANDS = re.compile(r"(?<=[0-9])(?:\\,|\\ |\{,\}|,\\!\s*|\{,\}\\!)(?=[0-9]{3}(?![0-9]))")
_SPACED_THOUSANDS = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
PICTURES = re.compile("[\u2190-\u21ff\u220e\u25a0\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]")
_SPACING = re.compile(r"\\[,;:! >]|~")
_SPACES = re.compile(r"\s+")
_MARKDOWN = re.compile(r"\*\*(?=\S)([^*]+)\*\*|`([^`]+)`")
_NEEDS_WORK = re.compile(r"[\\$~*`{]|[^\x00-\x7f]")
_COMPARISONS = (("<=", "\\le "), (">=", "\\ge "), ("=<", "\\le "))


def plain(text: str) -> str:
    r"""`text` in the one spelling.

    Examples: "$\dfrac{1}{2}$" is "\frac{1}{2}", "90^{\circ}" is "90°", "5\text{ cm}" is "5 cm",
    "x\leq 3" is "x\le 3", "10,\!080" is "10,080", "\$5" and "$5" are "$5".
    """
    if _NEEDS_WORK.search(text):
        text = _without_looks(text)
    text = text.replace("np.", "\\")  # as the references of Minerva have it
    for sign, command in _COMPARISONS:
        if sign in text:
            text = text.replace(sign, command)
    if "real" in text:
        text = _REALS.sub(r"\\reals ", text)
    text = _SPACES.sub(" ", text).strip()
    if _SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    return text[:-1].rstrip() if text.endswith((".", ",", ";")) else text


def strip_group(text: str) -> str:
    """`text` without braces around all of it."""
    while text.startswith("{") and text.endswith("}") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return position == len(text) - 1
    return False


def _without_looks(text: str) -> str:
    text = _RAISED.sub(lambda m: f"^{{{''.join(_SUPERSCRIPTS[c] for c in m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{''.join(_SUBSCRIPTS[c] for c in m[0])}}}", text)
    text = text.translate(_TABLE)
    if "*" in text or "`" in text:
        text = _MARKDOWN.sub(lambda m: m[1] or m[2], text)
    text = _REALS.sub(r"\\reals ", text)
    text = _THIN_THOUSANDS.sub(lambda m: "," if m[0].startswith(",") else "", text)
    text = PICTURES.sub("", text).replace("{,}", ",").replace("{:}", ":")
    if "\\dot" in text or "{d" in text:
        text = _DERIVATIVE.sub(lambda m: f" {m[1] or m[2]}'", text)
    text = _MICRO.sub(lambda m: f" \u03bc{m[1] or m[2]}", text)
    if "\\overline" in text or "\\bar" in text:
        text = _RECURRING.sub(_recurring, text)
    text = _rows_kept(text)
    text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ")
    text = text.replace("\\!", "").replace("\\%", "%").replace("\\#", "#").replace("\\&", " and ")
    text = _SPACING.sub(" ", _dollars(text)).replace("\x02", "\\\\")
    text = _IN_FONT.sub(r" \1 ", text)
    text = _COMMAND.sub(_one_name, text)
    text = _PRIME.sub("'", text)
    return _TO_A_POWER.sub("^", _DEGREE.sub("\u00b0", text))


def _recurring(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction: (16 - 1) / 90."""
    whole, before, again = match.groups()
    top = int(whole + before + again) - int(whole + before)
    return f"\\frac{{{top}}}{{{'9' * len(again) + '0' * len(before)}}}"


def _rows_kept(text: str) -> str:
    r"""Hide the row ends `\\` of matrices from the rules about `\ ` and `\]`."""
    text = text.replace("\\\\", "\x02")
    return text.replace("\\]", " ")


def _dollars(text: str) -> str:
    """Math mode's dollars go, the currency stays."""
    text = text.replace("\\$", "\x01")
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s?[0-9.])", "\x01", text, count=1)
    return text.replace("$", " ").replace("\x01", "$")


def _one_name(match: re.Match[str]) -> str:
    name = match[1]
    if name in _DROPPED or name in _FONTS:
        return " "
    return _SYNONYMS.get(name, match[0])
