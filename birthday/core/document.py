"""JSON that strangers wrote: parsed, and refused if it is nested deeper than anything that we take."""

import orjson

MAX_DEPTH = 64
"""Arrays and objects within each other. What is handled recursively later stays far from Python's own limit."""


def parse_json(text: bytes) -> object:
    """Return the value that ``text`` is.

    Raises:
        ValueError: if it is not JSON, or nested too deep; the text of the error quotes nothing of it.
    """
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    # Counting is fast, and hardly any document has as many brackets as it takes to be too deep.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested too deep: at most {MAX_DEPTH} levels are accepted")
    return value


def _depth(value: object) -> int:
    """Return how many arrays and objects are within each other, as far as it matters."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH and (containers := [item for item in level if isinstance(item, dict | list)]):
        depth += 1
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth
