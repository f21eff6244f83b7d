"""The migration files: how they are read, what is refused, and that they are part of what is installed."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from birthday.errors import MigrationError
from birthday.store.migrations import load_migrations

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


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("-- Contract: processes of 0.1.0 must have ended.\nDROP TABLE a;\n", "processes of 0.1.0 must have ended."),
        ("-- It makes room.\n-- Contract: processes of 0.1.0 must have ended.\n", None),
        ("SELECT '-- Contract: none.';\n", None),
    ],
)
def test_the_first_line_makes_a_contract_migration(tmp_path: Path, text: str, condition: str | None) -> None:
    """The rest of that line says what must have happened before."""
    _write(tmp_path, "0001_a.up.sql", "0001_a.down.sql")
    (tmp_path / "0001_a.up.sql").write_text(text)
    assert load_migrations(tmp_path)[0].condition == condition


def test_no_contract_migration_is_taken_for_another_one() -> None:
    """Whatever says "contract:" does so in its first line, and with one sentence or more, because others follow."""
    for migration in load_migrations():
        assert bool(re.search("contract:", migration.up, re.IGNORECASE)) is (migration.condition is not None)
        assert (migration.condition or ".").endswith("."), migration.label


def test_every_package_is_installed() -> None:
    """The list of packages in pyproject.toml has every package that there is, and the migrations."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = Path(str(files("birthday")))
    found = {".".join(path.parent.relative_to(package.parent).parts) for path in package.rglob("__init__.py")}
    assert set(setuptools["packages"]) == found | {"birthday.docs", "birthday.schema"}
    assert setuptools["package-dir"]["birthday.schema"] == "schema"
    assert setuptools["package-data"]["birthday.schema"] == ["*.sql"]


def test_whatever_drops_data_says_what_is_lost() -> None:
    """For each table and each column that a file drops, it has a line that names and counts that, for who is asked.

    What follows from other data is not lost: watermarks, phases, what is in flight, and the table of outcomes.
    """
    for migration in load_migrations():
        dropped = re.findall(r"DROP TABLE (\w+)|ALTER TABLE \w+ DROP COLUMN (\w+)", migration.down)
        told = " ".join(re.findall(r"^-- Lost: .+ \| SELECT count\(\*\) (.+)$", migration.down, re.MULTILINE))
        names = {table or column for table, column in dropped} - {"watermarks", "phase", "in_flight", "outcomes"}
        assert [name for name in names if not re.search(rf"\b{name}\b", told)] == [], migration.label


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE users DROP COLUMN locale", "ban-drop-column"),
        ("DROP TABLE past_greetings", "ban-drop-table"),
        ("DROP VIEW message_details", "ban-drop-view"),
        ("DROP FUNCTION feed_end()", "ban-drop-function"),
        ("ALTER TABLE users RENAME COLUMN locale TO language", "renaming-column"),
        ("ALTER TABLE users RENAME TO people", "renaming-table"),
        ("ALTER TABLE users ALTER COLUMN locale TYPE varchar(10)", "changing-column-type"),
        ("ALTER TABLE users ADD COLUMN nickname text NOT NULL", "adding-required-field"),
        ("ALTER TABLE users ADD COLUMN seen_at timestamptz DEFAULT clock_timestamp()", "adding-field-with-default"),
        ("ALTER TABLE users ALTER COLUMN locale SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE users ADD CONSTRAINT some CHECK (locale <> '')", "constraint-missing-not-valid"),
        ("ALTER TABLE users ADD CONSTRAINT one UNIQUE (locale)", "disallowed-unique-constraint"),
        ("CREATE INDEX users_locale ON users (locale)", "require-concurrent-index-creation"),
        ("CREATE INDEX message_logs_locale ON message_logs (locale)", "require-concurrent-index-creation"),
        ("DROP INDEX users_updated", "require-concurrent-index-deletion"),
    ],
)
def test_a_migration_that_harms_running_programs_is_refused(tmp_path: Path, statement: str, rule: str) -> None:
    """What the previous release may use stays, and no large table is locked for long."""
    (tmp_path / "migration.sql").write_text(f"{statement};\n")
    assert rule in _refused_by(ROOT / ".squawk.toml", tmp_path / "migration.sql")


def test_a_migration_that_only_adds_is_accepted(tmp_path: Path) -> None:
    """Columns that may be missing, indexes that are built concurrently, and anything on a new table."""
    (tmp_path / "migration.sql").write_text(
        "ALTER TABLE users ADD COLUMN nickname text, ADD COLUMN vip boolean NOT NULL DEFAULT false;\n"
        "CREATE INDEX CONCURRENTLY users_nickname ON users (nickname);\n"
        "CREATE TABLE gifts (id uuid PRIMARY KEY, name text NOT NULL);\nCREATE INDEX gifts_name ON gifts (name);\n"
    )
    assert _refused_by(ROOT / ".squawk.toml", tmp_path / "migration.sql") == set()


def test_files_that_are_not_checked_have_their_one_reason_only(tmp_path: Path) -> None:
    """Applied before the check came, they cannot have a comment: their checksum would change."""
    text, paths = (ROOT / ".squawk.toml").read_text().split("excluded_paths = ")
    (tmp_path / "squawk.toml").write_text(text)
    excepted = re.findall(r'"(schema/.+)", # ([a-z-]+): ', paths)
    assert {path: _refused_by(tmp_path / "squawk.toml", ROOT / path) for path, _ in excepted} == {
        path: {rule} for path, rule in excepted
    }
    assert len(excepted) == paths.count('"schema/')


def test_a_contract_migration_drops_what_the_previous_release_uses() -> None:
    """Its first line says when; each exception says why in the line above it."""
    header = "-- Contract: processes of 0.1.0 must have ended.\n"
    drop = "-- squawk-ignore ban-drop-column\nALTER TABLE users DROP COLUMN locale;\n"
    assert _without_reason(f"{header}-- Nothing reads it.\n{drop}") == []
    assert _without_reason(f"{header}\n{drop}") == ["-- squawk-ignore ban-drop-column"]
    assert _without_reason(f"-- Nothing reads it.\n{drop}") == ["-- squawk-ignore ban-drop-column"]


@pytest.mark.parametrize(
    ("comments", "is_stated"),
    [
        ("-- Not used since 0.1.0.\n-- squawk-ignore ban-drop-column", True),
        ("-- Not used since 99.0.0.\n-- squawk-ignore ban-drop-column", False),
        ("-- It is in the way.\n-- squawk-ignore ban-drop-column", False),
        ("-- squawk-ignore ban-drop-column", False),
        ("-- squawk-ignore-file", False),
        ("-- Nobody writes this table yet.\n-- squawk-ignore require-concurrent-index-creation", True),
        ("-- squawk-ignore require-concurrent-index-creation", False),
    ],
)
def test_what_counts_as_the_reason_of_an_exception(comments: str, is_stated: bool) -> None:  # noqa: FBT001
    """A comment above it; for what is dropped or renamed, the release that has stopped using it, which is out."""
    assert (_without_reason(f"SELECT 1;\n\n{comments}\nALTER TABLE users DROP COLUMN locale;\n") == []) is is_stated


def test_every_exception_has_its_reason() -> None:
    """One name is added, and later the other is dropped: see CONTRIBUTING.md."""
    assert [line for migration in load_migrations() for line in _without_reason(migration.up)] == []


def _refused_by(configuration: Path, migration: Path) -> set[str]:
    """Return the rules of squawk that a file breaks."""
    squawk = Path(sys.executable).with_name("squawk")
    command: list[str | Path] = [squawk, "--config", configuration, "--reporter", "gcc", migration]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    rules = set(re.findall(r": (?:warning|error): ([a-z-]+) ", finished.stdout))
    assert finished.returncode == bool(rules), finished
    return rules


def _without_reason(text: str) -> list[str]:
    """Return the exceptions in a migration that lack a reason."""
    released = re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    lines = text.splitlines()
    missing = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not (exception := re.match("-- squawk-ignore(.*)", line)):
            continue
        since = re.match(r"-- Not used since (\S+)\.$", before)
        contracts = exception[1].startswith("-file") or re.search(r"\b(ban-drop|renaming)-", exception[1])
        contracts = contracts and not text.startswith("-- Contract: ")
        if not (since and since[1] in released if contracts else before.startswith("-- ")):
            missing.append(line)
    return missing
