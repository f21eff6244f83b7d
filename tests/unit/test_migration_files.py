"""The migration files: how they are read, what is refused, and that they are part of what is installed."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from birthday.store.migrations import MigrationError, load_migrations

ROOT = Path(__file__).parents[2]


def _write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).write_text(f"-- {name}\n")
    return directory


def test_files_become_migrations_in_order_of_version(tmp_path: Path) -> None:
    """Two files make one migration; what is not SQL is passed over."""
    _write(tmp_path, "0002_b.up.sql", "0002_b.down.sql", "0001_a.up.sql", "0001_a.down.sql", "README.md")
    first, second = load_migrations(tmp_path)
    assert (first.version, first.name, first.label) == (1, "a", "0001_a")
    assert (first.up, first.down) == ("-- 0001_a.up.sql\n", "-- 0001_a.down.sql\n")
    assert second.label == "0002_b"


def test_line_endings_do_not_change_the_checksum(tmp_path: Path) -> None:
    """A checkout that writes CRLF has the same migrations; another text has other ones."""
    for name, text in (("lf", b"SELECT 1;\n"), ("crlf", b"SELECT 1;\r\n"), ("other", b"SELECT 2;\n")):
        (tmp_path / name).mkdir()
        _write(tmp_path / name, "0001_a.down.sql")
        (tmp_path / name / "0001_a.up.sql").write_bytes(text)
    lf, crlf, other = (load_migrations(tmp_path / name)[0].checksum for name in ("lf", "crlf", "other"))
    assert lf == crlf
    assert lf != other


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "there are no migrations in "),
        (["0001_a.up.sql"], r"schema/0001_a\.down\.sql is missing"),
        (["0001_a.down.sql"], r"schema/0001_a\.up\.sql is missing"),
        (["0001_a.up.sql", "0001_b.down.sql"], r"schema/0001_a\.down\.sql is missing"),
        (["0002_a.up.sql", "0002_a.down.sql"], "schema/0002_a: 0001 is expected here"),
        (
            ["0001_a.up.sql", "0001_a.down.sql", "0003_c.up.sql", "0003_c.down.sql"],
            "schema/0003_c: 0002 is expected here; versions have no gaps and occur once",
        ),
        (
            ["0001_a.up.sql", "0001_a.down.sql", "0001_b.up.sql", "0001_b.down.sql"],
            "schema/0001_b: 0002 is expected here; versions have no gaps and occur once",
        ),
        (["1_a.up.sql"], r"schema/1_a\.up\.sql: a name such as 0001_what_it_does\.up\.sql is accepted"),
        (["0001_a.sql"], r"schema/0001_a\.sql: a name such as"),
    ],
)
def test_what_is_incomplete_or_ambiguous_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """A gap, a version that occurs twice, a half that is missing or a bad name is an error that names the file."""
    _write(tmp_path, *names)
    with pytest.raises(MigrationError, match=message):
        load_migrations(tmp_path)


def test_the_schema_is_found_where_the_program_runs_from() -> None:
    """The migrations of the product are found and complete."""
    migrations = load_migrations()
    assert migrations[0].label == "0001_users_and_messages"


def test_every_package_is_installed() -> None:
    """The list of packages in pyproject.toml has every package that there is, and the migrations."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = Path(str(files("birthday")))
    found = {".".join(path.parent.relative_to(package.parent).parts) for path in package.rglob("__init__.py")}
    assert set(setuptools["packages"]) == found | {"birthday.docs", "birthday.schema"}
    assert setuptools["package-dir"]["birthday.schema"] == "schema"
    assert setuptools["package-data"]["birthday.schema"] == ["*.sql"]


def test_whatever_drops_data_says_what_is_lost() -> None:
    """For each table and each column that a file drops, it has a line that names and counts that, for who is asked."""
    for migration in load_migrations():
        dropped = re.findall(r"DROP TABLE (\w+)|ALTER TABLE \w+ DROP COLUMN (\w+)", migration.down)
        told = " ".join(re.findall(r"^-- Lost: .+ \| SELECT count\(\*\) (.+)$", migration.down, re.MULTILINE))
        names = {table or column for table, column in dropped} - {"watermarks"}
        assert [name for name in names if not re.search(rf"\b{name}\b", told)] == [], migration.label
