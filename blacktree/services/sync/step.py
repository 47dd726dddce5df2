"""The first step of a build: from a repository's address and ref to a commit on record and a context to build from."""

import errno
import os
from pathlib import Path

import structlog
import trio

from blacktree.address import Address, parse_address
from blacktree.concurrency.threads import in_thread
from blacktree.config import default_state_directory
from blacktree.errors import BadRequest, StepFailed
from blacktree.services.core.context import Build
from blacktree.services.core.masking import Masker
from blacktree.services.sync.credentials import Credentials, for_clone
from blacktree.services.sync.failures import DISK_ADVICE
from blacktree.services.sync.git import Git
from blacktree.services.sync.lfs import pointers, told
from blacktree.services.sync.mirrors import Corrupt, Mirrors, Resolved, mark_broken, trim
from blacktree.services.sync.submodules import graft_submodules
from blacktree.services.sync.tree import GitContext, Graft, commit_time, find_directory

log = structlog.get_logger()


class SyncStep:
    """Fetches, resolves, puts the commit on record, checks context and Dockerfile, leaves `build.context`."""

    name = "sync"

    async def run(self, build: Build) -> None:
        """Cancelled at any point it leaves no git process and a mirror that the next build can use."""
        title = f"fetch {build.spec.repository} {build.spec.ref or 'HEAD'}"
        await build.sink.step_started(self.name, title)
        started = trio.current_time()
        ok = False
        try:
            await self._sync(build)
            ok = True
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the worker's disk is full" if full else "the worker cannot run git or use its state directory"
            raise StepFailed(
                f"{what}: {error}",
                code="disk_full" if full else "state_unusable",
                advice=DISK_ADVICE if full else "is git installed, and the worker's state directory writable?",
                again=True,
                step=self.name,
            ) from None
        except StepFailed as error:
            error.step = error.step or self.name
            raise
        finally:
            # The end of the step is told even if the build is cancelled; the sink is quick or gone.
            with trio.move_on_after(2, shield=True):
                seconds = trio.current_time() - started
                await build.sink.step_finished(self.name, title, cached=False, seconds=seconds, ok=ok)

    async def _sync(self, build: Build) -> None:
        try:
            address = parse_address(build.spec.repository, allow_local=build.allow_local_sources)
        except BadRequest as error:
            raise StepFailed(error.message, code=error.code, advice=error.advice) from None
        state = state_directory(build)
        credentials = Credentials(build.config, for_clone(address, build.clone_token))
        git = Git(
            state / "git",
            credentials,
            stall_seconds=build.config.git_stall_seconds,
            masker=Masker([*credentials.secrets, *build.secrets.values()]),
            output=lambda data: build.sink.output(self.name, "stderr", data),
            progress=lambda current, total: build.sink.progress(self.name, current, total, "objects"),
        )
        await in_thread(git.prepare)
        mirrors = Mirrors(state, git, workspace=build.workspace, maximum_bytes=build.config.maximum_repository_bytes)
        build.context = await self._context(build, git, mirrors, address)
        await in_thread(lambda: trim(state, build.config.mirror_budget_bytes))

    async def _context(self, build: Build, git: Git, mirrors: Mirrors, address: Address) -> GitContext:
        for last in (False, True):
            resolved = await self._resolve(build, mirrors, address)
            if build.commit is None:
                if resolved.remark:
                    await build.sink.notice("ref_ambiguous", resolved.remark, step=self.name)
                await build.resolved(resolved.commit)
                build.commit = resolved.commit
            used = [resolved.mirror]
            try:
                return await self._assemble(build, git, mirrors, address, resolved, used)
            except Corrupt as error:
                log.warning("mirror corrupt", repository=address.url, error=str(error))
                for mirror in used:
                    mark_broken(mirror)
                if last:
                    raise StepFailed(
                        f"the worker's mirror of {address.url} is damaged: {error}",
                        code="mirror_corrupt",
                        advice="check the worker's disk",
                        again=True,
                    ) from None
        raise AssertionError("unreachable")

    async def _resolve(self, build: Build, mirrors: Mirrors, address: Address) -> Resolved:
        given = build.spec.repository
        if build.commit is not None:
            return await mirrors.pin(address, build.commit, given=given, gone="commit_gone")
        return await mirrors.resolve(address, build.spec.ref, given=given)

    async def _assemble(
        self, build: Build, git: Git, mirrors: Mirrors, address: Address, resolved: Resolved, used: list[Path]
    ) -> GitContext:
        root = Graft(resolved.mirror, resolved.commit)
        grafts = [root]

        async def notice(code: str, text: str) -> None:
            await build.sink.notice(code, text, step=self.name)

        grafts += await graft_submodules(git, mirrors, root, address, notice)
        used[:] = [graft.mirror for graft in grafts]
        directory = await find_directory(git, grafts, build.spec.context)
        context = GitContext(
            git,
            grafts,
            directory,
            key=f"{address.url}#{directory}",
            time=await commit_time(git, root),
            maximum_files=build.config.maximum_context_files,
        )
        await context.check_dockerfile(build.spec.dockerfile)
        if found := await pointers(context):
            await notice("lfs_not_fetched", told(found))
        return context


def state_directory(build: Build) -> Path:
    """Where this worker keeps its mirrors."""
    return Path(build.config.state_directory or default_state_directory(os.environ, "worker"))
