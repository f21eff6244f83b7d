"""Labels whose values operators choose."""

from birthday.telemetry.label_values import LabelValues


def test_names_beyond_the_bound_count_together() -> None:
    """The first names keep their series, whatever comes later."""
    values = LabelValues(2)
    assert [values.label(name) for name in ("a", "b", "a", "c", "b", "d")] == ["a", "b", "a", "other", "b", "other"]
