"""The kinds of problems: each code that the product uses is one, and no two are the same."""

import re
from pathlib import Path

import birthday
from birthday.http import kinds
from birthday.http.kinds import KINDS, Kind, kind_of

PRODUCT = Path(birthday.__file__).parent


def test_every_code_that_is_raised_is_a_kind() -> None:
    """An error with a code that no page explains would be an error of ours."""
    raised = set()
    for file in PRODUCT.rglob("*.py"):
        for call in re.findall(r"(?:NotFound|Conflict|InvalidInput)Error\((?:[^()]|\([^()]*\))*\)", file.read_text()):
            raised |= set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', call))
    assert {"unknown_user", "email_taken", "not_failed", "idempotency_key_reused"} <= raised
    assert raised <= set(KINDS)


def test_no_two_kinds_have_the_same_code() -> None:
    """A code means one thing."""
    assert len(KINDS) == sum(isinstance(one, Kind) for one in vars(kinds).values())


def test_every_status_of_a_refusal_has_a_kind() -> None:
    """Also those that only the parser or aiohttp gives."""
    for status in (400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 417, 422, 429, 431, 500, 503, 505):
        assert kind_of(status).status == status
