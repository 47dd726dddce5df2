"""How a job that names platforms can be built by the workers there are: by one, in parts, or not now. Pure."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from blacktree.job import Job
from blacktree.platforms import family
from blacktree.spec import JobSpec


class Profile(NamedTuple):
    """What a worker builds: natively, and besides. Families of platforms."""

    native: frozenset[str]
    emulated: frozenset[str]

    def builds(self, needs: Iterable[str]) -> bool:
        """Whether it can build all of these."""
        return all(each in self.native or each in self.emulated for each in needs)


class Wanted(NamedTuple):
    """What a job asks for. No families: any worker will do. `parts`: several workers may build it together."""

    families: tuple[str, ...] = ()
    parts: bool = False


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: it waits for somebody who builds these. Else `split`, or one worker that builds all of `needs`."""

    needs: frozenset[str] = frozenset()
    split: bool = False
    missing: frozenset[str] = frozenset()


def wanted(spec: JobSpec) -> Wanted:
    """As the job was submitted."""
    names = [spec.platform] if spec.platform else spec.platforms
    families = tuple(dict.fromkeys(filter(None, map(family, names))))
    # Without a push there is nothing to put together.
    return Wanted(families, spec.push and len(families) > 1)


def wanted_by(job: Job) -> Wanted:
    """As the job stands: where its parts are built, what is left can be done anywhere."""
    return Wanted() if job.parts else wanted(job.spec)


def find_way(want: Wanted, profiles: Collection[Profile], *, known: Collection[str] = (), settled: bool = True) -> Way:
    """The way with the least emulation; of two that are equal, the one with one worker.

    `profiles`: of the workers that are there. `known`: families that workers have built who may come back; `settled`
    false: more may come. Where nobody builds some of several platforms, and nobody is expected to, one worker tries.
    """
    needs = frozenset(want.families)
    if not needs:
        return Way()
    missing = frozenset(each for each in needs if not any(profile.builds([each]) for profile in profiles))
    if missing and (len(needs) == 1 or not settled or not missing.isdisjoint(known)):
        return Way(missing=missing)
    if missing:
        return Way(needs=_most(needs, profiles))
    alone = min((len(needs - each.native) for each in profiles if each.builds(needs)), default=None)
    together = sum(not any(each in profile.native for profile in profiles) for each in needs)
    if want.parts and (alone is None or together < alone):
        return Way(split=True)
    return Way(needs=needs if alone is not None else _most(needs, profiles))


def _most(needs: frozenset[str], profiles: Collection[Profile]) -> frozenset[str]:
    """Of these, what the worker builds that builds most of them."""
    found = [frozenset(each for each in needs if profile.builds([each])) for profile in profiles]
    return max(found, key=lambda each: (len(each), sorted(each)), default=frozenset())
