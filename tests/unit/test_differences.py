"""What differs between two versions of a template."""

from birthday.core.template import Source
from birthday.operations.templates.differences import MAX_LINES, Difference, differences


def test_changed_lines_are_told_with_a_few_around_them() -> None:
    """A part that is the same is left out; far lines that are the same become a gap."""
    old = "\n".join(f"line {number}" for number in range(20))
    found = differences(Source(old, "S"), Source(old.replace("line 3", "Line 3") + "\nend", "S"))
    assert list(found) == ["message"]
    kinds = "".join(one.kind[0] for one in found["message"])
    assert kinds == "sssrassggsssa".replace("gg", "sg")
    assert Difference("removed", "line 3") in found["message"]
    assert found["message"][-1] == Difference("added", "end")


def test_a_part_that_is_new_or_gone_is_told_as_a_whole() -> None:
    """So is every part of a first version."""
    found = differences(Source("Hi", subject="S"), Source("Hi", html="<p>"))
    assert found == {"subject": [Difference("removed", "S")], "html": [Difference("added", "<p>")]}
    assert differences(None, Source("Hi")) == {"message": [Difference("added", "Hi")]}
    assert differences(Source("Hi"), Source("Hi")) == {}


def test_many_lines_are_not_compared() -> None:
    """Comparing texts that somebody has made for it would hold up the program."""
    text = "a\n" * (MAX_LINES + 1)
    found = differences(Source(text), Source(text + "b"))["message"]
    assert {one.kind for one in found} == {"added", "removed"}
