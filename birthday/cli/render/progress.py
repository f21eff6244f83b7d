"""Progress bars, shown on a terminal only."""

from collections.abc import Sequence
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from birthday.operations.transfer.importing import ImportSummary


class _Bar:
    """A progress bar within the context."""

    def __init__(self, stream: TextIO, *columns: ProgressColumn) -> None:
        self._bar = Progress(
            *columns,
            console=Console(file=stream),
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not stream.isatty(),
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()


class Bar(_Bar):
    """A bar that counts to ``total``; ``done`` is the count so far."""

    def __init__(self, text: str, total: int, stream: TextIO) -> None:
        super().__init__(stream, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.done = 0
        self._task = self._bar.add_task(text, total=total)

    def advance(self, more: int) -> None:
        """Move the bar on by ``more``."""
        self.done += more
        self._bar.advance(self._task, more)

    def count(self, batch: Sequence[object]) -> None:
        """Move the bar on by the length of a batch."""
        self.advance(len(batch))


class ImportProgress(_Bar):
    """A bar over the bytes of a file. ``summary`` is the latest one given, even without a terminal."""

    def __init__(self, total_bytes: int | None, stream: TextIO) -> None:
        text = TextColumn("{task.fields[text]}")
        super().__init__(stream, BarColumn(), DownloadColumn(), text, TimeRemainingColumn())
        self.summary = ImportSummary()
        self._task = self._bar.add_task("", total=total_bytes, text="")

    def update(self, summary: ImportSummary, bytes_read: int) -> None:
        """Show the counts of all rows so far."""
        self.summary = summary
        seconds = self._bar.tasks[0].elapsed
        rate = f"{summary.read / seconds:,.0f} rows/s" if seconds else ""
        text = f"{summary.read:,} rows  {rate}  {summary.rejected:,} rejected"
        self._bar.update(self._task, completed=bytes_read, text=text)
