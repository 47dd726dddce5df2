"""How a job that names platforms can be built: the pure choice, and the index behind it."""

from hypothesis import given
from hypothesis import strategies as st

from blacktree.orchestrator.builders import Builder, Builders
from blacktree.orchestrator.ways import Profile, Wanted, Way, find_way, wanted
from blacktree.spec import JobSpec

AMD, ARM, RISC = "linux/amd64", "linux/arm64", "linux/riscv64"
platforms = st.sampled_from([AMD, ARM, RISC])
profiles = st.builds(
    lambda native, emulated: Profile(native, emulated - native), st.frozensets(platforms), st.frozensets(platforms)
)
wishes = st.builds(
    lambda families, parts: Wanted(tuple(families), parts and len(families) > 1),
    st.lists(platforms, unique=True),
    st.booleans(),
)


def a_profile(*native: str, emulated: tuple[str, ...] = ()) -> Profile:
    return Profile(frozenset(native), frozenset(emulated))


def way_of(*families: str, of: list[Profile], parts: bool = True, **more: object) -> Way:
    return find_way(Wanted(families, parts and len(families) > 1), of, **more)


def test_what_a_job_asks_for() -> None:
    def a_spec(**more: object) -> JobSpec:
        return JobSpec(repository="https://x/y", **more)

    assert wanted(a_spec()) == Wanted()
    assert wanted(a_spec(platform="linux/arm64/v8")) == Wanted((ARM,))
    assert wanted(a_spec(platforms=[AMD, ARM], push=True)) == Wanted((AMD, ARM), True)
    assert wanted(a_spec(platforms=[AMD, ARM])) == Wanted((AMD, ARM), False)
    assert wanted(a_spec(platforms=["linux/arm/v6", "linux/arm/v7"], push=True)) == Wanted(("linux/arm",), False)


def test_one_platform() -> None:
    assert way_of(AMD, of=[a_profile(AMD)]) == Way(needs=frozenset({AMD}))
    assert way_of(ARM, of=[a_profile(AMD, emulated=(ARM,))]) == Way(needs=frozenset({ARM}))
    assert way_of(ARM, of=[a_profile(AMD)]) == Way(missing=frozenset({ARM}))


def test_several_platforms() -> None:
    both, amd, arm = a_profile(AMD, ARM), a_profile(AMD), a_profile(ARM)
    able = a_profile(AMD, emulated=(ARM,))
    assert way_of(AMD, ARM, of=[amd, arm, both]) == Way(needs=frozenset({AMD, ARM}))
    assert way_of(AMD, ARM, of=[amd, arm]) == Way(split=True)
    assert way_of(AMD, ARM, of=[able, arm]) == Way(split=True)
    assert way_of(AMD, ARM, of=[able, amd]) == Way(needs=frozenset({AMD, ARM}))
    assert len(way_of(AMD, ARM, of=[amd, arm], parts=False).needs) == 1


def test_who_may_come_back_is_waited_for() -> None:
    amd = a_profile(AMD)
    assert way_of(AMD, ARM, of=[amd], settled=False) == Way(missing=frozenset({ARM}))
    assert way_of(AMD, ARM, of=[amd], known={ARM}) == Way(missing=frozenset({ARM}))
    assert way_of(AMD, ARM, of=[amd]) == Way(needs=frozenset({AMD}))
    assert way_of(AMD, ARM, of=[]) == Way()


@given(wishes, st.lists(profiles, max_size=4), st.sets(platforms), st.booleans())
def test_every_way_can_be_gone(want: Wanted, found: list[Profile], known: set[str], settled: bool) -> None:
    way = find_way(want, found, known=known, settled=settled)
    assert not (way.split and (way.needs or way.missing))
    if way.missing:
        assert not any(profile.builds([each]) for each in way.missing for profile in found)
    elif way.split:
        assert want.parts
        assert all(any(profile.builds([each]) for profile in found) for each in want.families)
        # Otherwise one worker would have done no worse.
        assert not any(frozenset(want.families) <= profile.native for profile in found)
    elif way.needs:
        assert way.needs <= frozenset(want.families)
        assert any(profile.builds(way.needs) for profile in found)


builders = st.builds(
    Builder,
    id=st.sampled_from("abcd"),
    pool=st.sampled_from(["default", "arm"]),
    profile=profiles,
    free=st.booleans(),
    here=st.booleans(),
)


@given(st.lists(st.one_of(builders, st.sampled_from("abcd")), max_size=40), st.frozensets(platforms, min_size=1))
def test_the_index_tells_what_a_look_at_everybody_would(changes: list[Builder | str], needs: frozenset[str]) -> None:
    index, known, ever = Builders(), dict[str, Builder](), set[str]()
    for change in changes:
        if isinstance(change, str):
            index.remove(change)
            known.pop(change, None)
            continue
        index.put(change)
        known[change.id] = change
        if change.pool == "arm":
            ever |= change.profile.native | change.profile.emulated
    mine = [each for each in known.values() if each.pool == "arm"]
    assert index.free("arm", needs) == {
        each.id: len(needs - each.profile.native) for each in mine if each.free and each.profile.builds(needs)
    }
    assert set(index.profiles("arm")) == {each.profile for each in mine if each.here}
    assert set(index.known("arm")) == ever
