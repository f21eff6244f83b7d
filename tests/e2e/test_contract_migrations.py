"""A contract migration as operators meet it: it waits through an upgrade, and goes both ways on request."""

import shutil
from pathlib import Path

import aiohttp

from birthday.store.migrations import load_migrations
from tests.support.program import Finished, run, running

ROOT = Path(__file__).parents[2]
CONDITION = "processes of 0.1.0 must have ended, and will not be started again."


async def test_a_contract_migration_waits_until_an_operator_asks_for_it(database_url: str, tmp_path: Path) -> None:
    """Each command, the console and the start say or accept that it waits; --contract applies it, --rollback undoes."""
    label = f"{len(load_migrations()) + 1:04}_contract"
    for part in ("birthday", "schema"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "schema" / f"{label}.up.sql").write_text(f"-- Contract: {CONDITION}\nSELECT 1;\n")
    (tmp_path / "schema" / f"{label}.down.sql").write_text("SELECT 1;\n")
    program = {"DATABASE_URL": database_url, "CHANNEL": "console", "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    waits = f"{label} waits: {CONDITION} Then run `birthday migrate --contract`."

    async def migrate(*options: str) -> Finished:
        finished = await run("migrate", *options, **program)
        assert finished.status == 0, finished.err
        return finished

    assert (await migrate()).out.splitlines() == ["nothing to be applied", waits]
    status = (await migrate("--status")).out.splitlines()
    assert status[-2].split() == [label, "waiting", "-"]
    assert status[-1] == waits
    async with running(**program) as service, aiohttp.ClientSession() as client:
        shown = await (await client.get(f"{service.url}/console/settings")).text()
        assert f"{CONDITION} Then run" in shown
        assert "schema.differs" not in {event["event"] for event in service.events}
        checked = await run("check", **program)
        assert f"migrations of the database  ok; {waits}" in checked.out

    assert (await migrate("--contract")).out.splitlines() == [f"applied {label}"]
    assert (await migrate("--rollback", "1", "--yes")).out.splitlines() == [f"undone {label}"]
    assert (await run("migrate", "--contract", "--status", **program)).status == 2
