"""What an import tells of a file: its columns, and the rows that were rejected."""

from io import FileIO
from pathlib import Path

import pytest

from birthday.errors import FieldError, InvalidInputError
from birthday.operations.transfer.columns import Column, read_columns
from birthday.operations.transfer.records import Rejected
from birthday.operations.transfer.rejects import MAX_BYTES, Rejects


def opened(tmp_path: Path, content: bytes) -> FileIO:
    """Return a file with this content."""
    path = tmp_path / "users"
    path.write_bytes(content)
    return FileIO(path)


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (
            b'\xef\xbb\xbf\n"first_name", email ,id,Team,anniversaries.name-day\r\nAda,a@example.com,,,\n',
            [
                Column("first_name", "firstName", is_known=True),
                Column(" email ", "email", is_known=True),
                Column("id", None, is_known=True),
                Column("Team", None, is_known=False),
                Column("anniversaries.name-day", "anniversaries.name-day", is_known=True),
            ],
        ),
        (
            b'{"firstName": "Ada", "team": 1, "createdAt": ""}\n{"email": ""}',
            [
                Column("firstName", "firstName", is_known=True),
                Column("team", None, is_known=False),
                Column("createdAt", None, is_known=True),
            ],
        ),
        (b"", []),
        (b"\n \n", []),
        (b"{broken", []),
        (b"\xff,email", []),
    ],
)
def test_each_column_is_told_with_its_field(tmp_path: Path, content: bytes, columns: list[Column]) -> None:
    """A column is read as a field, ignored because only exports have it, or unknown; the file is rewound."""
    with opened(tmp_path, content) as file:
        assert read_columns(file) == columns
        assert file.tell() == 0


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """Such as a workbook of a spreadsheet."""
    with opened(tmp_path, b"PK\x03\x04\0\0") as file, pytest.raises(InvalidInputError, match="is no text: CSV"):
        read_columns(file)


def rejected(*lines: int) -> Rejects:
    """Return these lines as rejected."""
    found = Rejects()
    for line in lines:
        found.add(Rejected(line, (FieldError("/email", 'is "wrong"'), FieldError("", "is odd"))))
    return found


@pytest.mark.parametrize(
    ("content", "lines", "rows"),
    [
        (b"a,b\n1,2\n3,4\n5,6\n", (2, 4), b"a,b\n1,2\n5,6\n"),
        (b'\na,b\n1,"x\ny"\n3,4\n5,"z', (3, 6), b'a,b\n1,"x\ny"\n5,"z\n'),
        (b'\n \na,b\n1,"x\n\n \ny"\n3,4\n', (4,), b'a,b\n1,"x\n\n \ny"\n'),
        (b'{"a": 1}\n{"a": 2}\r\n\n{"a": 3}', (2, 4), b'{"a": 2}\r\n{"a": 3}\n'),
        (b"a,b\n1,2\n", (), b""),
    ],
)
async def test_rejected_rows_come_as_they_are_in_the_file(
    tmp_path: Path, content: bytes, lines: tuple[int, ...], rows: bytes
) -> None:
    """CSV comes with its header, so that it can be mended and imported again."""
    with opened(tmp_path, content) as file:
        file.read()
        assert await rejected(*lines).rows(file) == rows


def test_errors_are_a_table() -> None:
    """Each error of each row has a line."""
    assert rejected(7).errors() == b'line,field,problem\n7,email,"is ""wrong"""\n7,,is odd\n'


def test_rejects_are_kept_up_to_a_limit() -> None:
    """All are counted."""
    found = Rejects()
    for line in range(3):
        found.add(Rejected(line, (FieldError("/email", "x" * MAX_BYTES),)))
    assert (found.count, len(found.kept), found.are_complete) == (3, 1, False)
