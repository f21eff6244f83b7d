"""The output of ``birthday explain``, as text or JSON."""

from typing import TextIO

import orjson

from birthday.operations.explain import Explained, explained_record


def print_explained(explained: Explained, out: TextIO) -> None:
    """Write a paragraph for each occasion: its outcome, then the steps that led to it."""
    out.write(f"user {explained.user.id}, {explained.user.zone}\n")
    for one in explained.explanations:
        out.write(f"\n{one.message_type} {one.year}: {one.outcome}\n  {one.reason}\n")
        out.writelines(f"  {step.about:<12} {step.says}\n" for step in one.steps)


def write_json(explained: Explained, out: TextIO) -> None:
    """Write one JSON object."""
    out.write(f"{orjson.dumps(explained_record(explained), default=str).decode()}\n")
