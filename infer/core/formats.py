"""Numbers and foreign text as they are shown, and as names of files."""

import math
import re
from hashlib import blake2b
from urllib.parse import quote

_CONTROL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    # window titles, links, ...; none goes on past the beginning of another, or many of them would take minutes
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)

_IN_IDS = re.compile(r"[^A-Za-z0-9_.~ -]+")
_IN_NAMES = re.compile(r"[/%\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def file_name(text: str, *, plain: bool = False) -> str:
    """A text as the name of a file that any file system takes: no other text has the same.

    Percent-encoded but for letters, digits, spaces and `_.~-`; with `plain` (a name that users read) only where a name
    can't be as it is: slashes, percent signs, control characters. Long names are cut off and get a hash.
    """
    reserved = _IN_NAMES if plain else _IN_IDS
    name = reserved.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), text)
    if not name.strip("."):
        name = name.replace(".", "%2E")
    if len(name.encode()) > 200:
        start = name.encode()[:180].decode(errors="ignore")
        name = f"{start}-{blake2b(text.encode(errors='surrogatepass'), digest_size=8).hexdigest()}"
    return name


def quantity(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix: 1.23T, 45.6 GB, 7.89 ms."""
    prefixes = {1e24: "Y", 1e21: "Z", 1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1: ""}
    prefixes |= {1e-3: "m", 1e-6: "µ", 1e-9: "n", 1e-12: "p"}
    scale = next((scale for scale in prefixes if abs(value) >= scale * 0.9995), 1.0)
    scaled = value / scale
    digits = f"{scaled:.{max(0, 2 - math.floor(math.log10(abs(scaled) * 1.0005)))}f}" if scaled else "0"
    return f"{digits} {prefixes[scale]}{unit}".rstrip() if unit else f"{digits}{prefixes[scale]}"


def clean(text: str) -> str:
    """A model's or a data set's text without what a terminal would obey; line breaks and tabs stay."""
    return _CONTROL.sub("", text)


def clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def natural(text: str) -> list[str | int]:
    """A sort key that puts "level 10" after "level 9"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
