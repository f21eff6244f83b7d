"""The progress bar of an import, shown on a terminal only."""

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from birthday.operations.transfer.importing import ImportSummary


class ImportProgress:
    """A progress bar within the context. ``summary`` is the latest one given, even without a terminal."""

    def __init__(self, total_bytes: int | None, stream: TextIO) -> None:
        self.summary = ImportSummary()
        self._bar = Progress(
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not stream.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_bytes, text="")

    def update(self, summary: ImportSummary, bytes_read: int) -> None:
        """Show the counts of all rows so far."""
        self.summary = summary
        seconds = self._bar.tasks[0].elapsed
        rate = f"{summary.read / seconds:,.0f} rows/s" if seconds else ""
        text = f"{summary.read:,} rows  {rate}  {summary.rejected:,} rejected"
        self._bar.update(self._task, completed=bytes_read, text=text)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
