"""Units of measure after a number: which dimension, and how many of its base unit.

A word that is no known unit ("apples") says nothing about the value and is allowed.
"""

import re
from fractions import Fraction

Unit = tuple[str, Fraction]

_FAMILIES: dict[str, dict[str, str]] = {
    "length": {
        "1": "m meter meters metre metres",
        "1/1000": "mm millimeter millimeters millimetre millimetres",
        "1/100": "cm centimeter centimeters centimetre centimetres",
        "1000": "km kilometer kilometers kilometre kilometres",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1/1000000": "\u03bcm micron microns micrometer micrometers",
        "1/1000000000": "nm nanometer nanometers nanometre nanometres",
        "1/10000000000": "angstrom angstroms \u00e5",
        "1143/1250": "yd yard yards",
        "201168/125": "mi mile miles",
    },
    "time": {
        "1": "s sec secs second seconds",
        "60": "min mins minute minutes",
        "3600": "h hr hrs hour hours",
        "86400": "day days",
        "604800": "week weeks",
    },
    "year": {"1": "year years yr yrs"},
    "month": {"1": "month months"},
    "mass": {
        "1": "g gm gms gram grams",
        "1/1000": "mg milligram milligrams",
        "1000": "kg kilogram kilograms kgs",
        "45359237/100000": "lb lbs pound pounds",
        "45359237/1600000": "oz ounce ounces",
    },
    "volume": {
        "1": "l liter liters litre litres",
        "3.785411784": "gal gallon gallons",
        "0.946352946": "quart quarts",
        "0.473176473": "pint pints",
        "1/1000": "ml milliliter milliliters millilitre millilitres",
    },
    "parsec": {
        "1": "pc parsec parsecs",
        "1000": "kpc kiloparsec kiloparsecs",
        "1000000": "megaparsec megaparsecs",
    },
    "arc": {"1": "arcsecond arcseconds arcsec", "60": "arcminute arcminutes arcmin"},
    "money": {"1": "dollar dollars usd bucks", "1/100": "cent cents"},
    "euro": {"1": "euro euros eur"},
    "british": {"1": "gbp"},
    "angle": {"1": "degree degrees deg \u00b0"},
    "radian": {"1": "rad radian radians"},
    "speed": {"1397/3125": "mph", "5/18": "kph kmh"},
    "energy": {
        "1": "j joule joules",
        "1000": "kj kilojoule kilojoules",
        "1.602176634e-19": "ev",
        "1.602176634e-16": "kev",
        "1.602176634e-13": "mev",
    },
    "force": {"1": "n newton newtons"},
    "power": {"1": "w watt watts"},
    "kelvin": {"1": "k kelvin"},
    "frequency": {"1": "hz hertz", "1000": "khz", "1000000": "mhz"},
    "pressure": {"1": "pa pascal pascals", "1000": "kpa", "101325": "atm"},
    "voltage": {"1": "v volt volts"},
    "current": {"1": "ampere amperes amp amps"},
    "charge": {"1": "c coulomb coulombs"},
    "capacitance": {"1": "f farad farads"},
    "field": {"1": "t tesla"},
    "amount": {"1": "mol mole moles"},
}
_UNITS: dict[str, Unit] = {
    name: (family, Fraction(factor))
    for family, names in _FAMILIES.items()
    for factor, words in names.items()
    for name in words.split()
}
_POWERED = re.compile(r"(square|sq|cubic|cu)\s+([a-z]+)|([a-z]+)\s*\^?\s*\{?([23])\}?")
_PHRASE = re.compile(r"[a-z\u00b0\u00e5\u03bc][a-z\u00b0 ./-]*(?:\^?\s*\{?[23]\}?)?")
_RATIO = re.compile(r"(.+?)\s*(?:/|\bper\b|\ban?\b)\s*([a-z]+(?:\s*\^?\s*\{?[23]\}?)?)")
CURRENCIES = frozenset(("money", "euro", "british"))
_ADJECTIVE = re.compile(r"\s+(?:long|wide|tall|high|deep|thick|away|apart|old|each|total|of .*)$")
_OF = re.compile(r"(?<=[a-z]) of [a-z ]+$")  # pieces of candy
_LETTERS = frozenset("mgshl\u00b0JKLNWVCFT\u00e5")  # units of one letter, as they are written
_CUBES = {"volume": ("length^3", Fraction(1, 1000))}  # litres are cubic decimetres

# Words that change what a number says: "8 or", "8 pi", "8 squared" are no numbers with units.
_NOT_UNITS = frozenset(
    [
        "or",
        "and",
        "is",
        "not",
        "if",
        "but",
        "than",
        "to",
        "of",
        "in",
        "with",
        "for",
        "by",
        "plus",
        "minus",
        "times",
        "over",
        "divided",
        "pi",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "ln",
        "log",
        "exp",
        "theta",
        "infinity",
        "inf",
        "squared",
        "cubed",
        "factorial",
        "choose",
        "mod",
        "e",
        "i",
        "x",
        "y",
        "z",
        "n",
        "million",
        "thousand",
        "billion",
        "trillion",
        "hundred",
        "dozen",
        "percent",
        "half",
        "third",
        "quarter",
        "thirds",
        "quarters",
        "fifths",
        "least",
        "most",
        "more",
        "less",
        "about",
        "maybe",
        "possibly",
        "perhaps",
        "either",
        "otherwise",
        "wrong",
        "false",
        "incorrect",
        "depending",
        "unless",
        "where",
        "when",
    ]
)


def is_unit_phrase(words: str, *, spaced: bool) -> bool:
    """True if `words` after a number may be its unit or what it counts: "cm^2", "right triangles".

    One or two letters must be a unit that is known, and `spaced` from the number if one letter:
    "5x" is a product.
    """
    name = _OF.sub("", words.strip().rstrip(".").lower())
    if not _PHRASE.fullmatch(name):
        return False
    if len(name) == 1 and words.strip() not in _LETTERS:
        return False
    if known_unit(name) is not None:
        return spaced or len(name) > 1
    parts = re.split(r"[\s/.\-^{}()0-9]+", name)
    parts = [part for part in parts if part]
    if not parts or len(parts) > 6 or _NOT_UNITS.intersection(parts):
        return False
    return max(map(len, parts)) > 2 and name.replace(" ", "").isascii()


def known_unit(words: str) -> Unit | None:
    """Dimension and size of a unit: "cm^2" and "square cm" are ("length^2", 1/10000)."""
    name = _ADJECTIVE.sub("", words.strip().rstrip(".").lower().replace(". ", " "))
    if name in _UNITS:
        return _UNITS[name]
    powered = _POWERED.fullmatch(name)
    if powered:
        word = powered[2] or powered[3]
        power = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}.get(powered[1] or "") or int(powered[4])
        if word in ("unit", "units"):
            return None
        base = _UNITS.get(word)
        return base and (f"{base[0]}^{power}", base[1] ** power)
    ratio = _RATIO.fullmatch(name)
    if ratio:
        top, bottom = known_unit(ratio[1]), known_unit(ratio[2])
        if top and bottom:
            kind = "speed" if (top[0], bottom[0]) == ("length", "time") else f"{top[0]}/{bottom[0]}"
            return kind, top[1] / bottom[1]
    return None


def same_amount(first: Fraction, unit: str, second: Fraction, other: str) -> bool:
    """True if both amounts are equal; a unit that is missing or unknown is the other's."""
    a, b = known_unit(unit), known_unit(other)
    if a is None or b is None:
        return first == second
    a, b = _cubic(a, b), _cubic(b, a)
    return a[0] == b[0] and first * a[1] == second * b[1]


def _cubic(unit: Unit, other: Unit) -> Unit:
    """Litres as cubic metres where the other is cubic."""
    if unit[0] in _CUBES and other[0] == _CUBES[unit[0]][0]:
        return other[0], unit[1] * _CUBES[unit[0]][1]
    return unit
