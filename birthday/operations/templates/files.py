"""Templates as files, so that they can live in git: ``TYPE/LOCALE/message.txt`` and the other parts beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from birthday.core.template import PARTS, Source, parse_locale, parse_type
from birthday.errors import FieldError, InvalidInputError

FILES: Final = {"message": "message.txt", "subject": "subject.txt", "html": "body.html", "payload": "payload.json"}
_PARTS: Final = {name: part for part, name in FILES.items()}


def read_directory(directory: Path) -> dict[tuple[str, str], Source]:
    """Return the templates in a directory, by type and locale, the default of each type first.

    Files beside the directories of types and locales, and names that begin with a dot, are not looked at.

    Raises:
        InvalidInputError: if a name is not accepted, a message is missing, or a file is not UTF-8; names the file.
        OSError: if something cannot be read.
    """
    found = {}
    for of_type in _directories(directory):
        message_type = _named(of_type, parse_type)
        for of_locale in _directories(of_type):
            found[message_type, _named(of_locale, parse_locale)] = _read_source(of_locale)
    if not found:
        accepted = "directories such as birthday/default, with a message.txt, are accepted"
        raise InvalidInputError(FieldError("", f"{directory} has no templates; {accepted}"))
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "default", item[0][1])))


def write_directory(directory: Path, templates: Mapping[tuple[str, str], Source]) -> None:
    """Write templates as ``read_directory`` reads them. Parts that a template does not have are removed."""
    for (message_type, locale), source in templates.items():
        place = directory / message_type / locale
        place.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            text, file = getattr(source, part), place / FILES[part]
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(f"{text}\n".encode())


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _named(directory: Path, parse: Callable[[str], str]) -> str:
    try:
        return parse(directory.name)
    except InvalidInputError as error:
        raise InvalidInputError(FieldError("", f"{directory}: {error.fields[0].detail}")) from None


def _read_source(directory: Path) -> Source:
    texts = {}
    for file in sorted(directory.iterdir()):
        if file.name.startswith("."):
            continue
        if file.name not in _PARTS:
            raise InvalidInputError(FieldError("", f"{file}: accepted are {', '.join(_PARTS)}"))
        try:
            # An editor ends the last line; that is no part of the text.
            texts[_PARTS[file.name]] = file.read_bytes().decode().replace("\r\n", "\n").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError(FieldError("", f"{file} is not UTF-8: byte {error.start}")) from None
    if "message" not in texts:
        raise InvalidInputError(FieldError("", f"{directory} has no {FILES['message']}, which every template needs"))
    return Source(**texts)
