"""What is said of wrong input: in our words, for whatever JSON comes."""

from typing import Any, Final

import pytest
from pydantic import BaseModel

from birthday.core.document import validate
from birthday.errors import InvalidInputError
from birthday.http.app import RESOURCES

CANARY: Final = "zaphod"
TEXTS: Final = ("", CANARY, CANARY * 2000, f"{CANARY}\0", "-1", "1e9", "true")
VALUES: Final[tuple[Any, ...]] = (
    *TEXTS,
    None,
    True,
    -1,
    1.5,
    10**12,
    [],
    [CANARY],
    {},
    {CANARY: CANARY},
    {"message": 1},
)
MODELS: Final[dict[type[BaseModel], tuple[Any, ...]]] = {
    **{route.body: VALUES for route in RESOURCES if route.body},
    **{route.query: TEXTS for route in RESOURCES if route.query},
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_is_accepted_is_said_in_our_words(model: type[BaseModel]) -> None:
    """No text is pydantic's, none is empty, and none repeats what was given but the name of a type or locale."""
    for name, field in model.model_fields.items():
        for value in MODELS[model]:
            with_it = {field.alias or name: value}
            try:
                validate(model, with_it)
            except InvalidInputError as error:
                for one in error.fields:
                    assert one.detail not in {"", "is not accepted"}, one
                    for foreign in ("Input", "should", "String", "Value error"):
                        assert foreign not in one.detail, one
                    if name not in {"timezone", "locale", "anniversaries"}:
                        assert CANARY not in one.detail, one
