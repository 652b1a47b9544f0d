"""The tokens of an expression, and the names that have a meaning."""

import re

FUNCTIONS = {
    name: name
    for name in (
        "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan",
        "sinh", "cosh", "tanh", "ln", "log", "exp",
    )
} | {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}  # fmt: skip
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
CONSTANTS = {"pi": ("pi",), "infty": ("infinity",), "e": ("e",), "i": ("i",)}
GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "hbar",
        "ell",
    ]
)
ACCENTS = frozenset(["dot", "ddot", "vec", "hat", "bar", "overline", "tilde", "mathcal", "mathbb"])
_PLAIN_NAMES = {"infinity": "infty", "inf": "infty", "oo": "infty", "pi": "pi"}
_ENGLISH = frozenset(("the", "are", "was", "has", "not"))
_MAX_WORD = 3  # letters; a longer word of letters is text and no product of variables

_TOKEN = re.compile(
    r"\s*(?P<token>(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?)"
    r"|\\[A-Za-z]+|\\[{}|]|[A-Za-z]+|\*\*|\S)"
)


class Unreadable(Exception):
    """The text is not an expression of the kind that is read here."""


STARTING = GREEK | ACCENTS | FUNCTIONS.keys() | CONSTANTS.keys()
STARTING |= {"frac", "binom", "sqrt", "lfloor", "lceil", "lvert", "sum", "prod"}


def split_words(text: str) -> list[str]:
    """Tokens; a run of letters is a name that is known, or up to three variables."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match["token"]
        if not token[0].isalpha() or token in FUNCTIONS or token == "sqrt" or len(token) == 1:
            tokens.append(token)
        elif token.lower() in _PLAIN_NAMES:
            tokens.append("\\" + _PLAIN_NAMES[token.lower()])
        elif token in GREEK:
            tokens.append("\\" + token)
        elif len(token) <= _MAX_WORD and token.isascii() and token not in _ENGLISH:
            tokens.extend(token)
        else:
            raise Unreadable(token)
    return tokens or [""]
