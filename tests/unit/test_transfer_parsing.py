"""From bytes to rows: what an import reads, what it refuses, and at which line."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthday.cli.render.transfer import describe_rejected, describe_report
from birthday.core.occasion import LeapDay, Rules
from birthday.core.plan import planned_messages
from birthday.core.user import Profile
from birthday.core.zone import zone_names
from birthday.errors import FieldError, InvalidInputError, UnavailableError
from birthday.operations.transfer.cells import CsvCells
from birthday.operations.transfer.importing import month_days_near
from birthday.operations.transfer.records import Format, Rejected, Row, UserRecords, format_of
from birthday.operations.transfer.report import FIRST_ROWS, Report, open_report
from birthday.operations.transfer.source import MAX_LINE_BYTES, Line, LineSplitter, open_source
from birthday.store.users import Planning

HEADER = "firstName,lastName,email,dateOfBirth,timezone,timezoneOffset\n"
ADA = {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "email": "ada@example.com",
    "dateOfBirth": "1990-12-10",
    "timezone": "Europe/London",
}
ADA_LINE = "Ada,Lovelace,ada@example.com,1990-12-10,Europe/London,\n"


def read(content: bytes | str, file_format: Format | None = None, piece: int = 8192) -> list[Row | Rejected]:
    """Read ``content`` in pieces of so many bytes, as if they came one after the other."""
    data = content.encode() if isinstance(content, str) else content
    lines, records = LineSplitter(), UserRecords(file_format)
    found: list[Row | Rejected] = []
    for start in range(0, len(data), piece):
        found.extend(records.read(lines.feed(data[start : start + piece]), last=False))
    found.extend(records.read(lines.finish(), last=True))
    return found


def rows(content: bytes | str, piece: int = 8192) -> dict[int, object]:
    """Return the readable rows by line; there must be no others."""
    found = read(content, piece=piece)
    assert [each for each in found if isinstance(each, Rejected)] == []
    return {each.line: each.data for each in found if isinstance(each, Row)}


def problems(content: bytes | str, piece: int = 8192) -> dict[int, str]:
    """Return what is wrong with the rows that cannot be read, by line."""
    return {
        each.line: "; ".join(f"{error.pointer}{error.detail}" for error in each.errors)
        for each in read(content, piece=piece)
        if isinstance(each, Rejected)
    }


def file_error(content: bytes | str) -> str:
    """Return why the file as a whole is refused."""
    with pytest.raises(InvalidInputError) as caught:
        read(content)
    return str(caught.value)


def test_cells_become_the_members_that_the_api_takes() -> None:
    """An empty cell is a member that is not given, and an offset is a number."""
    content = HEADER + ADA_LINE + "Bo,Ek,bo@example.com,1990-01-01T00:00:00Z,,-210\n"
    assert rows(content) == {
        2: ADA,
        3: {
            "firstName": "Bo",
            "lastName": "Ek",
            "email": "bo@example.com",
            "dateOfBirth": "1990-01-01T00:00:00Z",
            "timezoneOffset": -210,
        },
    }


def test_columns_come_in_any_order_and_in_snake_case() -> None:
    """A header is read by its names, whichever way they are written and wherever they stand."""
    content = "date_of_birth, timezone,EMAIL,first_name,last_name\n".replace("EMAIL", "email")
    assert rows(content + "1990-12-10,Europe/London,ada@example.com,Ada,Lovelace\n") == {2: ADA}


def test_read_only_columns_are_ignored_in_both_formats() -> None:
    """What an export adds (id, createdAt, updatedAt, nextMessageAt) is no part of what is imported."""
    extra = {"id": "x", "createdAt": "x", "updatedAt": "x", "nextMessageAt": "x"}
    members = ADA | extra
    assert rows(",".join(members) + "\n" + ",".join(members.values()) + "\n") == {2: ADA}
    assert rows(orjson.dumps(members)) == {1: ADA}


@pytest.mark.parametrize("text", ["abc", "7.5", "1e2", "٤٢٠", "9" * 5000])
def test_an_offset_that_is_no_whole_number_stays_text(text: str) -> None:
    """The validation then refuses it together with everything else that is wrong in the row."""
    assert rows(HEADER + f"Ada,Lovelace,ada@example.com,1990-12-10,,{text}\n") == {
        2: {key: value for key, value in ADA.items() if key != "timezone"} | {"timezoneOffset": text}
    }


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 8192])
def test_a_byte_order_mark_and_windows_line_ends_mean_nothing(piece: int) -> None:
    """The same rows come out, in whatever pieces the bytes come in."""
    content = b"\xef\xbb\xbf" + (HEADER + ADA_LINE).replace("\n", "\r\n").encode()
    assert rows(content, piece) == {2: ADA}
    assert rows(b"\xef\xbb\xbf" + orjson.dumps(ADA) + b"\r\n", piece) == {1: ADA}


def test_blank_lines_are_skipped_and_counted_as_lines() -> None:
    """Empty lines, lines of spaces and rows of empty cells are no rows, but they are lines of the file."""
    assert rows("\n \n" + HEADER + "\n  \n,,,,,\n" + ADA_LINE) == {7: ADA}
    assert rows(b"\n\r\n" + orjson.dumps(ADA) + b"\n \n" + orjson.dumps(ADA)) == {3: ADA, 5: ADA}


def test_the_last_line_need_not_end() -> None:
    """A file that ends without a line feed loses nothing."""
    assert rows(HEADER + ADA_LINE.removesuffix("\n")) == {2: ADA}


@pytest.mark.parametrize("content", ["", "\n", " \r\n\n", HEADER, HEADER + "\n", b"\xef\xbb\xbf"])
def test_a_file_may_be_empty(content: bytes | str) -> None:
    """No rows, or nothing but a header, is no error."""
    assert read(content) == []


@pytest.mark.parametrize("piece", [1, 5, 8192])
def test_a_quoted_cell_may_go_on_over_lines(piece: int) -> None:
    """A record is known by the line where it starts, and what follows it by its own."""
    note = '"said ""hello,\nworld""\r\n\n"'
    content = f"id,{HEADER}{note},{ADA_LINE}2,{ADA_LINE}"
    assert rows(content, piece) == {2: ADA, 6: ADA}


def test_a_record_whose_lines_come_one_by_one_is_read_when_nothing_follows() -> None:
    """A client may wait for the answer to a record before it sends the next one."""
    cells = CsvCells()
    assert list(cells.read([Line(1, b'Ada,"a long first line')], last=False)) == []
    assert list(cells.read([Line(2, b'short"')], last=False)) == []
    assert list(cells.read([], last=False)) == [(1, ["Ada", "a long first line\nshort"])]


@pytest.mark.parametrize("piece", [1, 8192])
def test_blank_lines_within_a_cell_stay(piece: int) -> None:
    """Only those before the header mean nothing."""
    line = ADA_LINE.replace("Ada", '"A\n\n  \nda"')
    assert rows(f"\n\n{HEADER}{line}", piece) == {4: ADA | {"firstName": "A\n\n  \nda"}}


def test_every_cell_may_be_quoted() -> None:
    """Quotation marks around everything, header included, change nothing."""
    content = io.StringIO()
    csv.writer(content, quoting=csv.QUOTE_ALL).writerows([list(ADA), list(ADA.values())])
    assert rows(content.getvalue()) == {2: ADA}


@pytest.mark.parametrize("piece", [1, 8192])
def test_a_quotation_mark_that_is_never_closed_costs_one_row(piece: int) -> None:
    """The record is given up at the line where it starts, and reading resumes at the next line."""
    content = HEADER + ADA_LINE + '"Bo,Ek,bo@example.com,1990-01-01,UTC,\n' + ADA_LINE * 3
    found = read(content, piece=piece)
    assert [each.line for each in found if isinstance(each, Row)] == [2, 4, 5, 6]
    assert problems(content, piece) == {3: "is not CSV: unexpected end of data"}


def test_an_unclosed_quotation_mark_before_much_text_costs_one_row() -> None:
    """Looking for the end of a cell has a limit, far from the end of the file."""
    count = 2 * MAX_LINE_BYTES // len(ADA_LINE)
    found = read(HEADER + '"Bo,Ek\n' + ADA_LINE * count)
    assert [each.line for each in found if isinstance(each, Rejected)] == [2]
    assert len(found) == count + 1


class CountedBytes(bytes):
    """A line that counts how often lines like it are decoded."""

    times = 0

    def decode(self, *args: str) -> str:  # noqa: D102
        CountedBytes.times += 1
        return super().decode(*args)


@pytest.mark.parametrize("end", [b"", b'"x', b"\xff"])
@pytest.mark.parametrize("piece", [100, 20_000])
def test_cells_that_are_never_closed_cost_little_however_many_there_are(end: bytes, piece: int) -> None:
    """Each line leaves a cell open, which the next one closes before it opens another. No line is read often."""
    CountedBytes.times = 0
    count = 12_000
    lines = [Line(number, CountedBytes(b'b","x')) for number in range(1, count)] + [Line(count, CountedBytes(end))]
    cells = CsvCells()
    found: list[tuple[int, list[str] | str]] = []
    for start in range(0, count, piece):
        found += cells.read(lines[start : start + piece], last=False)
    found += cells.read([], last=True)
    assert [line for line, problem in found if isinstance(problem, str)] == list(range(1, count + bool(end)))
    assert CountedBytes.times < 5 * count


def read_one_by_one(lines: list[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield what ``csv`` makes of each record; after a broken one, start anew at its second line."""
    at = 0
    while at < len(lines):
        reader = csv.reader((f"{line}\n" for line in lines[at:]), strict=True)
        try:
            if found := next(reader):
                yield at + 1, found
            at += reader.line_num
        except csv.Error as error:
            yield at + 1, f"is not CSV: {str(error).partition(' - ')[0]}"
            at += 1


@given(st.text('",a\n', max_size=60), st.integers(min_value=1, max_value=12))
def test_a_broken_record_costs_one_line_and_changes_no_other(content: str, piece: int) -> None:
    """Records that are given up at once are those that would be given up if all were read anew."""
    lines = content.split("\n")
    cells = CsvCells()
    found: list[tuple[int, list[str] | str]] = []
    for start in range(0, len(lines), piece):
        numbered = enumerate(lines[start : start + piece], start + 1)
        found += cells.read([Line(number, line.encode()) for number, line in numbered], last=False)
    found += cells.read([], last=True)
    assert found == list(read_one_by_one(lines))


def test_a_record_of_very_many_lines_is_refused() -> None:
    """Short lines in a cell are few bytes, but each takes memory. Reading resumes at its second line."""
    header, cell = f"attributes,{HEADER}", "[\n" + "1,\n" * 4998 + "1]"
    assert rows(f'{header}"{cell}",{ADA_LINE}') == {2: ADA | {"attributes": [1] * 4999}}
    found = problems(f'{header}"\n{cell}",{ADA_LINE}{ADA_LINE}')
    assert found.pop(2) == "has more lines than the 5,000 that are accepted"
    assert set(found) == {*range(3, 5002), 5003}


@pytest.mark.parametrize(
    "lines",
    [
        [b'"', *[b"x"] * 3000, *[b'","' + b"x" * 100_000] * 100],
        [b'"' + b"x" * 100_000, *[b""] * 20_000],
    ],
)
def test_while_the_end_of_a_cell_is_looked_for_little_is_kept_in_memory(lines: list[bytes]) -> None:
    """Neither many bytes nor many lines wait, whichever come first."""
    cells = CsvCells()
    for number, content in enumerate(lines, 1):
        list(cells.read([Line(number, content)], last=False))
        waiting = cells._waiting  # noqa: SLF001 - what is held is the point
        assert len(waiting) < 15_000
        assert sum(len(line.content or b"") for line in list(waiting)[-200:]) < 3 * MAX_LINE_BYTES


def test_a_record_of_many_long_lines_is_refused_like_a_long_line() -> None:
    """Quoted line breaks do not get around the limit of what is kept in memory."""
    cells = ",".join(['"\n' + "x" * 60_000 + '"'] * 30)
    assert problems(f"{HEADER}{cells}\n{ADA_LINE}")[2] == "is longer than the 1,048,576 bytes that are accepted"


def test_a_row_with_a_wrong_number_of_cells_is_refused() -> None:
    """Too few or too many cells: nobody can tell which one is missing."""
    assert problems(HEADER + "Ada,Lovelace\n" + ADA_LINE + "Ada,Lovelace,a@example.com,1990-12-10,UTC,,\n") == {
        2: "has 2 cells; 6 are accepted, as in the header",
        4: "has 7 cells; 6 are accepted, as in the header",
    }


def test_text_that_is_not_utf8_costs_one_row() -> None:
    """Latin-1 in one line is refused there, in both formats, and the rest is read."""
    line = "Zoë,Ek,zoe@example.com,1990-01-01,UTC,\n".encode("latin-1")
    content = HEADER.encode() + ADA_LINE.encode() + line + ADA_LINE.encode()
    assert problems(content) == {3: "is not UTF-8"}
    assert len(read(content)) == 3
    found = read(orjson.dumps(ADA) + b'\n{"firstName":"Zo\xeb"}\n' + orjson.dumps(ADA))
    assert [type(each) for each in found] == [Row, Rejected, Row]


def test_broken_json_costs_one_row() -> None:
    """The text says what is wrong and at which column."""
    found = problems(orjson.dumps(ADA) + b'\n{"firstName":,}\n' + orjson.dumps(ADA))
    assert list(found) == [2]
    assert found[2].startswith("is not JSON: unexpected character")
    assert found[2].endswith("at column 14")


@pytest.mark.parametrize("data", [b"7", b"[]", b'"Ada"', b"null"])
def test_json_that_is_no_object_is_left_to_the_validation(data: bytes) -> None:
    """Any JSON value is a row; the rules of a user refuse all but objects."""
    assert rows(orjson.dumps(ADA) + b"\n" + data) == {1: ADA, 2: orjson.loads(data)}


@pytest.mark.parametrize("header", [HEADER.encode(), orjson.dumps(ADA) + b"\n"])
@pytest.mark.parametrize("piece", [8192, 100_000])
def test_a_line_that_is_too_long_costs_one_row(header: bytes, piece: int) -> None:
    """It is refused without being kept, and the next line is read."""
    good = ADA_LINE.encode() if header == HEADER.encode() else header
    content = header + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + good + b"y" * (MAX_LINE_BYTES + 1)
    found = read(content, piece=piece)
    refused = [each for each in found if isinstance(each, Rejected)]
    assert [each.line for each in refused] == [2, 4]
    assert {each.errors[0].detail for each in refused} == {"is longer than the 1,048,576 bytes that are accepted"}
    assert Row(3, ADA) in found


def test_a_long_line_is_not_kept_in_memory() -> None:
    """While a line goes on and on, no more than the limit and one piece of it are held."""
    lines = LineSplitter()
    piece = b"x" * 8192
    for _ in range(3 * MAX_LINE_BYTES // len(piece)):
        assert lines.feed(piece) == []
        assert len(lines._rest) <= MAX_LINE_BYTES  # noqa: SLF001 - what is held is the point
    assert [(line.number, line.content) for line in lines.feed(b"\nnext\n")] == [(1, None), (2, b"next")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("firstName,lastName,email,birthday,timezone", "unknown column 'birthday'"),
        ("firstName;lastName;email;dateOfBirth;timezone", "accepted, separated by commas, are firstName, lastName"),
        ("firstName,lastName,email,email,dateOfBirth,timezone", "more than one column email"),
        ("firstName,first_name,lastName,email,dateOfBirth,timezone", "more than one column firstName"),
        ("firstName,email,timezone", "lacks the column dateOfBirth;"),
        ("firstName,lastName,email,dateOfBirth", "lacks the column timezone or timezoneOffset;"),
        ('"firstName,lastName', "the header of the file is not CSV"),
        ("[1,2]", "JSON array"),
    ],
)
def test_a_wrong_header_is_one_error_for_the_whole_file(header: str, expected: str) -> None:
    """It names the column, and what is accepted."""
    assert expected in file_error(f"{header}\n{ADA_LINE}")


def test_a_header_may_have_very_many_columns() -> None:
    """Each is compared with those before it in one step: otherwise these would take minutes."""
    dates = [f"anniversaries.day-{number}" for number in range(40_000)]
    content = ",".join([*ADA, *dates]) + "\n" + ",".join([*ADA.values(), *[""] * 39_999, "2019-03-04"])
    assert rows(content) == {2: ADA | {"anniversaries": {"day-39999": "2019-03-04"}}}
    assert "more than one column anniversaries.day-7" in file_error(",".join([*ADA, *dates, dates[7]]))


def test_a_header_in_utf16_is_refused() -> None:
    """What some spreadsheets call Unicode text is not UTF-8, and the error says so."""
    assert "the header of the file is not UTF-8" in file_error((HEADER + ADA_LINE).encode("utf-16"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("users.csv", Format.CSV),
        ("/data/USERS.CSV", Format.CSV),
        ("users.ndjson", Format.NDJSON),
        ("users.jsonl", Format.NDJSON),
        ("users.txt", None),
        ("users", None),
        ("-", None),
    ],
)
def test_the_extension_tells_the_format(name: str, expected: Format | None) -> None:
    """Where it does not, the content will."""
    assert format_of(name) is expected


def test_the_extension_wins_over_the_content() -> None:
    """A file that is called CSV is read as CSV, whatever it begins with."""
    with pytest.raises(InvalidInputError, match="the header of the file"):
        read(orjson.dumps(ADA), Format.CSV)
    assert [type(each) for each in read(HEADER, Format.NDJSON)] == [Rejected]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=30)


@given(
    st.lists(st.tuples(cells, cells, cells), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(min_value=1, max_value=60),
)
def test_what_the_csv_module_writes_is_read_back(
    given_rows: list[tuple[str, str, str]], line_end: str, piece: int
) -> None:
    """Any text survives quoting, line breaks and being cut into pieces, and rows know their line.

    Except for lone carriage returns: Python 3.11 writes those without quotation marks.
    """
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator=line_end)
    writer.writerow([*ADA, "id"])
    expected: dict[int, object] = {}
    for first_name, last_name, ignored in given_rows:
        line = content.getvalue().count("\n") + 1
        writer.writerow([first_name, last_name, "ada@example.com", "1990-12-10", "UTC", ignored])
        named = {"firstName": first_name.strip(), "lastName": last_name.strip()}
        expected[line] = {name: text for name, text in named.items() if text} | {
            "email": "ada@example.com",
            "dateOfBirth": "1990-12-10",
            "timezone": "UTC",
        }
    assert rows(content.getvalue().encode(), piece) == expected


@given(
    born=st.dates(date(1900, 1, 1), date(2025, 12, 31)) | st.just(date(2000, 2, 29)),
    zone=st.sampled_from(sorted(zone_names())) | st.sampled_from(["UTC+14:00", "UTC-12:00"]),
    now=st.datetimes(datetime(2011, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - as hypothesis wants them
    horizon=st.sampled_from([timedelta(minutes=5), timedelta(hours=48), timedelta(days=40)]),
    send_at=st.times(),
    leap_day=st.sampled_from(LeapDay),
)
def test_nobody_who_needs_a_message_is_passed_over(
    *, born: date, zone: str, now: datetime, horizon: timedelta, send_at: time, leap_day: LeapDay
) -> None:
    """The cheap look at month and day is never stricter than the rule itself."""
    planning = Planning(Rules(send_at.replace(microsecond=0), leap_day), horizon)
    # A birthday at this very moment: most of the drawn dates would be far from it.
    near = [now.date() + timedelta(days=days) for days in range(-3, horizon.days + 5)]
    for candidate in [born, *(day.replace(year=day.year - 4) for day in near)]:
        profile = Profile("Ada", "Lovelace", "ada@example.com", candidate, zone)
        if planned_messages(profile, now, horizon, planning.rules):
            assert candidate.month * 100 + candidate.day in month_days_near(now, planning)


def rejected(count: int) -> Iterator[Rejected]:
    """Yield rejected rows from line 2 on."""
    for number in range(count):
        yield Rejected(number + 2, (FieldError("/email", "is required"), FieldError("", "nor is this right")))


def test_a_report_shows_the_first_rows_and_keeps_all(tmp_path: Path) -> None:
    """The screen gets twenty, the number of others, and the place where all of them are."""
    source, path = tmp_path / "users.csv", tmp_path / "errors.ndjson"
    source.touch()
    with open_source(str(source)) as file, open_report(path, file) as report:
        for each in rejected(FIRST_ROWS + 1234):
            report.add(each)
    lines = describe_report(report)
    assert lines[0] == "line 2: email: is required; nor is this right"
    assert lines[FIRST_ROWS:] == ["… and 1,234 rejected rows more", f"all rejected rows are in {path}"]
    kept = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert len(kept) == FIRST_ROWS + 1234
    assert kept[0] == {
        "line": 2,
        "errors": [{"pointer": "/email", "detail": "is required"}, {"pointer": "", "detail": "nor is this right"}],
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_report_of_nothing_leaves_no_file(tmp_path: Path) -> None:
    """And takes nothing away: a file that was there, which may be anything, stays as it is."""
    source, path = tmp_path / "users.csv", tmp_path / "users.csv.errors.ndjson"
    source.touch()
    with open_source(str(source)) as file, open_report(path, file) as report:
        pass
    assert describe_report(report) == []
    assert list(tmp_path.iterdir()) == [source]
    path.write_text("earlier")
    with open_source(str(source)) as file, open_report(path, file):
        assert path.read_text() == "earlier"
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {source.name: "", path.name: "earlier"}


def test_a_report_takes_the_name_of_a_file_and_keeps_that_under_another(tmp_path: Path) -> None:
    """Nothing is truncated or deleted, however often; and who reads the earlier one reads on."""
    source, path = tmp_path / "users.csv", tmp_path / "precious"
    source.touch()
    path.write_text("precious")
    for _ in range(2):
        with open_source(str(source)) as file, open_report(path, file) as report:
            report.add(next(rejected(1)))
    assert "errors" in orjson.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "precious.1").read_text() == "precious"
    assert (tmp_path / "precious.2").read_text() == path.read_text()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_report_does_not_follow_a_link(tmp_path: Path, target: str) -> None:
    """Whoever may write to the directory could have it written anywhere otherwise."""
    source, path = tmp_path / "users.csv", tmp_path / "report"
    source.touch()
    (tmp_path / "there").write_text("precious")
    path.symlink_to(tmp_path / target)
    with open_source(str(source)) as file, open_report(path, file) as report:
        report.add(next(rejected(1)))
    assert path.is_file()
    assert not path.is_symlink()
    assert (tmp_path / "report.1").readlink() == tmp_path / target
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_report_never_replaces_what_is_imported(tmp_path: Path) -> None:
    """Naming the file itself, by whatever path, is refused before it is touched."""
    source = tmp_path / "users.csv"
    source.write_text(HEADER)
    link = tmp_path / "link"
    link.symlink_to(source)
    with (
        open_source(str(source)) as file,
        pytest.raises(InvalidInputError, match="would replace"),
        open_report(link, file),
    ):
        pass
    assert source.read_text() == HEADER


def test_a_report_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """The error names the path, before a single row is imported."""
    source = tmp_path / "users.csv"
    source.touch()
    with (
        open_source(str(source)) as file,
        pytest.raises(InvalidInputError, match=r"missing/errors.* cannot be written: No such file or directory"),
        open_report(tmp_path / "missing" / "errors", file),
    ):
        pass


def test_a_report_on_a_full_disk_is_not_cut_short_in_silence(tmp_path: Path) -> None:
    """The import ends with an error that names the report, and the device is not removed."""
    source, full = tmp_path / "users.csv", Path("/dev/full")
    source.touch()
    with (
        open_source(str(source)) as file,
        pytest.raises(UnavailableError, match="/dev/full cannot be written: No space left on device"),
        open_report(full, file) as report,
    ):
        report.add(next(rejected(1)))
    assert full.exists()


def test_without_a_file_the_report_says_how_to_get_one() -> None:
    """An import from standard input has no place for a file of its own."""
    report = Report(None, None)
    for each in rejected(FIRST_ROWS + 1):
        report.add(each)
    assert describe_report(report)[-1] == "--report PATH keeps all of them"


def test_what_is_shown_is_harmless_to_a_terminal() -> None:
    """Control characters are not repeated, and long values are cut."""
    text = describe_rejected(Rejected(2, (FieldError("/email", "\x1b[2J\x07'é'" + "x" * 5000),)))
    assert text.isprintable()
    assert text.startswith("line 2: email: \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}'é'")
    assert len(text) < 500


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file, and why."""
    with pytest.raises(InvalidInputError, match=r"none\.csv cannot be read: No such file or directory"):
        open_source(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidInputError, match="cannot be read: Is a directory"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("depth", [65, 980, 1000, 1023, 1024, 100_000])
def test_a_line_that_is_nested_too_deep_is_one_bad_row(depth: int) -> None:
    """What recursion cannot bear costs its own line and not the import."""
    good = orjson.dumps(ADA)
    deep = b'{"firstName": ' + b"[" * depth + b"]" * depth + b"}"
    found = read(good + b"\n" + deep[: MAX_LINE_BYTES - 1] + b"\n" + good + b"\n")
    assert [type(each) for each in found] == [Row, Rejected, Row]
