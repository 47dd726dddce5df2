"""A batch that the orchestrator cannot take ends its own attempt, with the reason; the others go on."""

from pathlib import Path

import pytest
import trio

from blacktree.errors import BadRequest, TooLarge
from blacktree.event import Lines
from blacktree.rpc.peer import Report, ReportAnswer, StopOrder
from tests.parts.orchestrator_side import OrchestratorPart, an_assignment
from tests.worker.test_daemon import a_script, a_worker


class Picky(OrchestratorPart):
    """Reads no report that says this."""

    def __init__(self, error: BadRequest) -> None:
        super().__init__()
        self.error = error
        self.refusals = 0

    async def report(self, report: Report) -> ReportAnswer:
        records = [record for each in report.attempts for batch in each.batches for record in batch.records]
        if any(isinstance(record, Lines) and "poison" in record.text for record in records):
            self.refusals += 1
            raise self.error
        return await super().report(report)


class Deaf(OrchestratorPart):
    """Reads no report at all, whatever it brings, until it is well again."""

    refusals = 0

    async def report(self, report: Report) -> ReportAnswer:
        if 0 < self.refusals < 8:
            self.refusals += 1
            self._ring()
            raise BadRequest("status: is not to my liking", path="status")
        return await super().report(report)


async def test_what_the_worker_says_of_itself_is_no_attempts_fault(tmp_path: Path) -> None:
    part = Deaf()
    good = an_assignment("good", script=ENDLESS)
    async with a_worker(tmp_path, part) as (side, _):
        await side.run_jobs([good])
        await part.until(lambda: part.of(good.name).text != "")
        part.refusals = 1
        await part.until(lambda: part.refusals == 8)
        before = len(part.of(good.name).text)
        await part.until(lambda: len(part.of(good.name).text) > before)
        assert part.of(good.name).outcome is None


ENDLESS = a_script(*[{"step": "s", "seconds": 0.05, "lines": 3, "line": "good {n}"} for _ in range(1000)])
POISON = [{"step": "p", "lines": 2000, "line": "fine " * 40}, {"step": "p", "lines": 1, "line": "poison"}]


@pytest.mark.parametrize("error", [BadRequest("cannot be read", path="records"), TooLarge("too many records")])
@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_refused_report_ends_the_one_that_it_is_about(tmp_path: Path, error: BadRequest, goes_on: bool) -> None:
    part = Picky(error)
    good = an_assignment("good", script=ENDLESS)
    bad = an_assignment("bad", script=a_script(*POISON, *([{"seconds": 300}] if goes_on else [])))
    async with a_worker(tmp_path, part, slots=3) as (side, _):
        await side.run_jobs([good])
        await part.until(lambda: part.of(good.name).text != "")
        await side.run_jobs([bad])
        outcome = await part.outcome(bad.name)
        assert outcome.state == "failed"
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.retryable) == ("report_refused", False)
        assert error.message in outcome.error.message
        before = len(part.of(good.name).text)
        await part.until(lambda: len(part.of(good.name).text) > before)
        refusals = part.refusals
        # The slot is free again, and whoever comes next is heard.
        after = an_assignment("after", script=a_script({"step": "s", "lines": 1}))
        with trio.fail_after(40):
            while not (await side.run_jobs([after]))[0].accepted:
                await trio.sleep(0.05)
        assert (await part.outcome(after.name)).state == "succeeded"
        assert part.refusals == refusals
        assert [batch.number for batch in part.of(bad.name).batches] == list(
            range(1, len(part.of(bad.name).batches) + 1)
        )
        assert "poison" not in part.of(bad.name).text
        await side.stop_jobs([StopOrder(name=good.name, why="canceled")])
        assert (await part.outcome(good.name)).state == "canceled"
        assert (await side.ping()).status.busy == 0
