from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docfleet.vlm.breaker import FAILURES, Breaker, Circuit
from docfleet.vlm.budget import Budget
from docfleet.vlm.endpoint import Endpoint
from docfleet.vlm.limit import AdaptiveLimit, Ceiling
from docfleet.vlm.pool import NotAllowed, Pool
from docfleet.vlm.records import EndpointState, Member, PoolSettings
from docfleet.vlm.upstream import kind_of
from tests.vlm_simulation import LAYOUT, Outcome, PaperServer, Run, url_of

PAGES = 120


def servers(names: str, seconds: float = 1.0, slots: int = 1) -> dict[str, PaperServer]:
    return {name: PaperServer(seconds, slots) for name in names}


@pytest.mark.parametrize("at_once", [8, 16, 32, PAGES])
def test_four_servers_take_a_quarter_of_the_time_of_one(at_once: int) -> None:
    one, four = Run(servers("a")).go(PAGES, at_once), Run(servers("abcd")).go(PAGES, at_once)
    assert one.seconds / four.seconds >= 3.8
    assert max(four.pages.values()) - min(four.pages.values()) <= 2


@pytest.mark.parametrize("at_once", [8, 16, 32, PAGES])
def test_a_server_ten_times_slower_gets_less_and_delays_nobody(at_once: int) -> None:
    good = Run(servers("abc")).go(PAGES, at_once)
    mixed = Run(servers("abc") | servers("d", seconds=10)).go(PAGES, at_once)
    assert good.seconds / mixed.seconds >= 0.9
    assert mixed.pages[url_of("d")] <= PAGES / 20


@pytest.mark.parametrize("line", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("documents", [[160], [20] * 8, [12] * 8, [7] * 23], ids=str)
def test_the_same_holds_for_documents_read_in_windows_of_layouts_and_then_lines(
    documents: list[int], line: float
) -> None:
    def read(names: str, slow: float = 0) -> Outcome:
        paper = {name: PaperServer(1, light=line) for name in names}
        return Run(paper | ({"slow": PaperServer(slow, light=line)} if slow else {})).go_in_windows(documents)

    one, three, four = read("a"), read("abc"), read("abcd")
    assert one.seconds / four.seconds >= 3.9
    assert max(four.pages.values()) - min(four.pages.values()) <= 4
    assert three.seconds / read("abc", slow=10).seconds >= 0.9


def test_requests_of_unequal_length_make_no_server_look_slow() -> None:
    paper = {name: PaperServer(1, light=0.01) for name in "abcd"}
    outcome = Run(paper).go(400, at_once=8)
    # 200 that take a second each and 200 that take almost nothing, over four servers.
    assert outcome.seconds <= 200 * 1.01 / 4 * 1.15


@pytest.mark.parametrize("at_once", [8, 16, 48, 192])
def test_a_slow_server_is_known_by_what_takes_long_and_not_by_what_takes_nothing(at_once: int) -> None:
    fast = {name: PaperServer(1, light=0.01) for name in "abc"}
    good = Run(dict(fast)).go(192, at_once)
    fast = {name: PaperServer(1, light=0.01) for name in "abc"}
    mixed = Run(fast | {"d": PaperServer(10, light=0.001)}).go(192, at_once)
    assert good.seconds / mixed.seconds >= 0.9


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"messages":[{"content":[{"type":"text","text":"\\nLayout Detection:"}]}],"top_k":1}', "Layout Detection"),
        (b'{"content": [{"type": "text", "text": "Text Recognition:"}]}', "Text Recognition"),
        (b'{"content":"what does the picture show?"}', ""),
        (b"", ""),
    ],
)
def test_what_a_request_asks_for_is_told_from_mineru_s_prompt(body: bytes, kind: str) -> None:
    assert kind_of(b"x" * 100_000 + body) == kind


def test_a_server_that_dies_and_returns_costs_no_page_and_gets_its_share_again() -> None:
    run = Run(servers("abc") | {"d": PaperServer(1, dead=(5, 15))})
    run.go(60)
    before = run.pages[url_of("d")]
    run.now = max(run.now, 20.0)
    outcome = run.go(PAGES)
    assert sum(outcome.pages.values()) == 60 + PAGES
    assert outcome.pages[url_of("d")] - before >= PAGES / 4 - 4
    # Nobody went on asking the dead one: only what it held, and its trials.
    assert outcome.failures <= 10


def test_in_serial_mode_one_request_is_under_way_at_a_time() -> None:
    run = Run(servers("abcd"), PoolSettings(serial=True))
    assert run.go(20).seconds == pytest.approx(20.0)
    assert sum(server.most_held for server in run.servers.values()) <= 4
    assert max(server.most_held for server in run.servers.values()) == 1


def test_the_limit_finds_what_a_server_that_batches_can_do() -> None:
    run = Run(servers("a", slots=32))
    assert run.go(600).seconds <= 600 / 32 * 2
    assert 16 <= run.pool.endpoints()[0].flow(LAYOUT).limit.value <= 64


def test_the_limit_of_a_server_that_reads_one_page_at_a_time_stays_small() -> None:
    run = Run(servers("a"))
    run.go_in_windows([100] * 3)
    assert run.pool.endpoints()[0].flow(LAYOUT).limit.value <= 4
    assert run.servers[url_of("a")].most_held <= 16


@pytest.mark.parametrize("slots", [4, 32, 64])
def test_the_limits_find_what_a_server_that_batches_can_do_with_pages_and_lines(slots: int) -> None:
    outcome = Run({"a": PaperServer(1, slots, light=0.1)}).go_in_windows([64] * 12, window=64)
    assert outcome.seconds <= 64 * 12 * 1.1 / slots * 1.5


def test_a_server_that_says_429_gets_fewer_and_loses_nothing() -> None:
    run = Run({"a": PaperServer(1, slots=4, refuses_over=4)})
    outcome = run.go(100)
    assert outcome.pages[url_of("a")] == 100
    assert outcome.failures == 0
    assert outcome.seconds <= 2 * 100 / 4


@given(
    st.lists(
        st.tuples(
            st.floats(0.05, 5), st.integers(1, 8), st.floats(0, 30), st.floats(0, 10), st.sampled_from([0, 0, 2, 6])
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 80),
    st.integers(1, 40),
)
def test_every_page_is_read_once_whatever_the_servers_do(
    made: list[tuple[float, int, float, float, int]], pages: int, at_once: int
) -> None:
    paper = {
        f"s{n}": PaperServer(seconds, slots, dead=(dies, dies + away), refuses_over=over)
        for n, (seconds, slots, dies, away, over) in enumerate(made)
    }
    run = Run(paper)
    assert sum(run.go(pages, at_once).pages.values()) == pages
    assert all(endpoint.in_flight >= 0 for endpoint in run.pool.endpoints())
    assert all(server.most_held <= 100 for server in paper.values())


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(1, 60)), max_size=300), st.integers(1, 50))
def test_the_limit_stays_between_one_and_the_most(answers: list[tuple[float, int]], most: int) -> None:
    limit = AdaptiveLimit(most)
    for seconds, in_flight in answers:
        limit.succeeded(seconds, in_flight, in_flight)
        assert 1 <= limit.value <= most


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=300), st.integers(1, 50))
def test_the_ceiling_stays_between_one_and_the_most(events: list[tuple[int, bool]], most: int) -> None:
    ceiling = Ceiling(most)
    for moment, (in_flight, refused) in enumerate(events):
        before = ceiling.value
        if refused:
            ceiling.refused(in_flight, float(moment), 0.5)
            assert ceiling.value <= before
        else:
            ceiling.succeeded(in_flight)
            assert ceiling.value >= before
        assert 1 <= ceiling.value <= most


def test_one_round_of_refusals_halves_what_was_there_once() -> None:
    ceiling = Ceiling(100)
    for moment in range(5):
        ceiling.refused(12, 10 + moment / 10, 1.0)
    assert ceiling.value == 6
    for _ in range(5):
        ceiling.succeeded(5)
    assert ceiling.value == 6, "nobody reached it"
    for _ in range(7):
        ceiling.succeeded(6)
    assert ceiling.value == 7


def test_a_refusal_in_a_quiet_moment_does_not_take_what_was_served_a_while_ago() -> None:
    ceiling = Ceiling(100)
    for in_flight in (1, 20, 60, 2):
        ceiling.succeeded(in_flight)
    ceiling.refused(1, 10.0, 1.0)
    assert ceiling.value == 30
    # Refused again and again, it is as little as that.
    for moment in range(20, 30):
        ceiling.refused(1, float(moment), 1.0)
    assert ceiling.value == 1
    ceiling.restart()
    assert ceiling.value == 100


def test_a_server_that_asks_to_be_asked_again_at_once_rests_a_moment() -> None:
    endpoint = up("http://a")
    endpoint.congested(100.0, 0.0)
    assert not endpoint.may_send(LAYOUT, 100.4)
    assert endpoint.may_send(LAYOUT, 100.5)


def test_a_limit_that_nobody_reaches_teaches_nothing() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(50):
        limit.succeeded(1.0, 1, 1)
    assert limit.value == 2


def test_a_breaker_opens_after_failures_in_a_row_and_one_good_trial_closes_it() -> None:
    breaker = Breaker()
    assert not breaker.may_send(0)
    breaker.healthy(0.0)
    for _ in range(FAILURES - 1):
        breaker.failed(1.0, "x")
    breaker.succeeded()
    for _ in range(FAILURES):
        assert breaker.may_send(5)
        breaker.failed(1.0, "x")
    assert breaker.circuit is Circuit.OPEN
    assert breaker.reason == "x"
    breaker.healthy(1.5)
    assert breaker.circuit is Circuit.OPEN
    breaker.healthy(2.5)
    assert breaker.may_send(0)
    assert not breaker.may_send(1)
    breaker.failed(2.6, "y")
    # Twice as long now.
    breaker.healthy(4.0)
    assert breaker.circuit is Circuit.OPEN
    breaker.healthy(5.0)
    breaker.succeeded()
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.reason == ""


def test_an_answer_to_an_old_request_does_not_bring_back_a_server_that_was_given_up() -> None:
    breaker = Breaker()
    breaker.healthy(0.0)
    breaker.failed(0.0, "refuses the key", final=True)
    breaker.succeeded()
    assert breaker.circuit is Circuit.OPEN


def test_a_server_rests_as_long_as_it_asks_for_and_no_longer_than_half_a_minute() -> None:
    endpoint = up("http://a")
    endpoint.congested(100.0, 7.0)
    assert endpoint.row(106.0).state is EndpointState.RESTING
    assert not endpoint.may_send(LAYOUT, 106.0)
    assert endpoint.may_send(LAYOUT, 107.5)
    endpoint.congested(200.0, 86400.0)
    assert endpoint.may_send(LAYOUT, 231.0)


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.8), (0.8, 0.1)])
def test_of_servers_with_as_much_to_do_the_one_that_is_done_first_gets_the_next(first: float, second: float) -> None:
    pool = Pool(PoolSettings(), ())
    pool.declare([Member(url="http://a"), Member(url="http://b")], 0.0)
    for endpoint, begins in zip(pool.endpoints(), (first, second), strict=True):
        endpoint.breaker.healthy(0.0)
        # One after the other, a second each; the next has begun a while ago.
        for moment in (-1.0, 0.0):
            load = endpoint.started(LAYOUT, moment + begins)
            if moment:
                endpoint.succeeded(LAYOUT, 1.0, load, begins)
                endpoint.ended(LAYOUT, begins)
    chosen = pool.pick(None, LAYOUT, 1, (), 0.9)
    assert chosen is not None
    assert chosen.url == ("http://a" if first < second else "http://b")


@pytest.mark.parametrize("pace", [0.2, 1.0, 30.0])
def test_a_server_that_was_slow_is_tried_again_the_sooner_the_less_that_costs(pace: float) -> None:
    endpoint = up("http://a")
    for _ in range(30):
        load = endpoint.started(LAYOUT, 100.0)
        endpoint.succeeded(LAYOUT, pace, load, 100.0)
        endpoint.ended(LAYOUT, 100.0)
    others = [{1: pace / 9}]
    assert endpoint.slowness(LAYOUT, others, 100.0) == pytest.approx(9.0, rel=0.01)
    assert endpoint.slowness(LAYOUT, others, 100.0 + 10 * pace) == pytest.approx(5.0, rel=0.01)
    assert endpoint.slowness(LAYOUT, others, 100.0 + 30 * pace) == pytest.approx(2.0, rel=0.01)
    endpoint.started(LAYOUT, 100.0)
    assert endpoint.slowness(LAYOUT, others, 1e6) == pytest.approx(9.0, rel=0.01), "it has work: it is being measured"


def test_a_server_that_batches_is_no_faster_for_having_much_and_its_idle_twin_no_slower() -> None:
    paper = {name: PaperServer(1, 64, crowd=16, light=0.3) for name in "ab"}
    # The second is away while the first learns to take many at once.
    paper["b"].dead = (0.0, 30.0)
    run = Run(paper)
    while run.now < 30:
        run.go(200, at_once=32)
    before = Counter(run.pages)
    run.go(2000, at_once=32)
    assert run.pages[url_of("b")] - before[url_of("b")] >= 0.35 * 2000, run.pages - before


@pytest.mark.parametrize("at_once", [32, 64, 96])
def test_equal_servers_that_batch_get_equal_shares(at_once: int) -> None:
    run = Run({name: PaperServer(1, 64, crowd=16, light=0.3) for name in "abcd"})
    pages = run.go(3000, at_once).pages
    assert max(pages.values()) <= 1.5 * min(pages.values()), pages


def test_refusals_of_one_burst_make_a_server_rest_once_and_those_of_the_next_twice_as_long() -> None:
    endpoint = up("http://a")
    for moment in range(7):
        endpoint.congested(100.0 + moment / 100, None)
    assert not endpoint.may_send(LAYOUT, 100.4)
    assert endpoint.may_send(LAYOUT, 100.5)
    endpoint.congested(101.0, None)
    assert not endpoint.may_send(LAYOUT, 101.9)
    assert endpoint.may_send(LAYOUT, 102.0)


def test_pages_are_counted_by_their_layout_and_their_speed_is_that_of_the_last_minute() -> None:
    endpoint = Endpoint(Member(url="http://a.example"), pooled=True, most=10, now=0.0)
    assert (endpoint.row(5.0).pages, endpoint.row(5.0).pages_per_second) == (0, 0.0)
    for moment in range(10, 20):
        for kind in ("Layout Detection", "Text Recognition", "Text Recognition"):
            load = endpoint.started(kind, float(moment))
            endpoint.succeeded(kind, 0.5, load, float(moment))
            endpoint.ended(kind, float(moment))
    row = endpoint.row(20.0)
    assert (row.done, row.pages, row.pages_per_second) == (30, 10, 1.0)
    assert (endpoint.row(200.0).pages, endpoint.row(200.0).pages_per_second) == (10, 0.0)


def test_a_drained_server_gets_nothing_finishes_what_it_has_and_is_forgotten() -> None:
    pool = Pool(PoolSettings(), ())
    pool.declare([Member(url="http://a"), Member(url="http://b")], 0.0)
    for endpoint in pool.endpoints():
        endpoint.breaker.healthy(0.0)
    (drained,) = [endpoint for endpoint in pool.endpoints() if endpoint.url == "http://a"]
    drained.started(LAYOUT, 0.0)
    pool.declare([Member(url="http://b")], 1.0)
    for _ in range(3):
        chosen = pool.pick(None, LAYOUT, 1, (), 1.0)
        assert chosen is None or chosen.url == "http://b"
    assert pool.tidy(1.0) == []
    drained.ended(LAYOUT, 2.0)
    assert pool.tidy(2.0) == [drained]
    assert [row.url for row in pool.rows(2.0)] == ["http://b"]


def test_a_failed_request_goes_elsewhere_and_back_only_if_nobody_else_is_alive() -> None:
    pool = Pool(PoolSettings(), ())
    pool.declare([Member(url="http://a"), Member(url="http://b")], 0.0)
    one, other = pool.endpoints()
    one.breaker.healthy(0.0)
    other.breaker.healthy(0.0)
    assert pool.pick(None, LAYOUT, 1, {one.url}, 0.0) is other
    other.started(LAYOUT, 0.0)
    # It is busy: better to wait for it than to fail at the first again.
    assert pool.pick(None, LAYOUT, 1, {one.url}, 0.0) is None
    other.failed(0.0, "broken", final=True)
    assert pool.pick(None, LAYOUT, 1, {one.url}, 0.0) is one


def test_a_named_server_is_used_for_those_who_name_it_and_only_if_it_is_allowed() -> None:
    pool = Pool(PoolSettings(), ["http://guest"])
    pool.declare([Member(url="http://a")], 0.0)
    with pytest.raises(NotAllowed):
        pool.admit(frozenset({"http://stranger"}), 0.0)
    pool.admit(frozenset({"http://guest"}), 0.0)
    for endpoint in pool.endpoints():
        endpoint.breaker.healthy(0.0)
    chosen = pool.pick(frozenset({"http://guest"}), LAYOUT, 1, (), 0.0)
    assert chosen is not None
    assert chosen.url == "http://guest"
    pooled = pool.pick(None, LAYOUT, 1, (), 0.0)
    assert pooled is not None
    assert pooled.url == "http://a"
    pool.admit(frozenset({"http://guest"}), 9_900.0)
    assert pool.tidy(10_000.0) == [], "a request for it is on its way in"
    assert pool.tidy(20_000.0) == [chosen]


def test_no_key_is_shown() -> None:
    endpoint = Endpoint(Member(url="http://a", key="hush"), pooled=True, most=1, now=0.0)
    assert "hush" not in repr(endpoint.member) + str(endpoint.row(0.0).to_json())


def up(url: str) -> Endpoint:
    endpoint = Endpoint(Member(url=url), pooled=True, most=100, now=0.0)
    endpoint.breaker.healthy(0.0)
    endpoint.started(LAYOUT, 0.0)
    endpoint.succeeded(LAYOUT, 1.0, 1, 1.0)
    endpoint.ended(LAYOUT, 1.0)
    return endpoint


async def test_a_budget_is_never_overdrawn_and_nobody_waits_for_ever() -> None:
    budget, held, most = Budget(100), 0, 0

    async def one(wanted: int, seconds: float) -> None:
        nonlocal held, most
        async with budget.hold(wanted):
            held += min(wanted, 100)
            most = max(most, held)
            await asyncio.sleep(seconds)
            held -= min(wanted, 100)

    tasks = [asyncio.create_task(one(wanted, 0.001)) for wanted in (60, 60, 500, 10, 0, 100, 30, 30, 30, 30)]
    await asyncio.sleep(0)
    # Who leaves while it waits, or at the moment of its turn, gives back what it had.
    for task in tasks[1:3]:
        task.cancel()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in told].count(True) == 2
    assert most <= 100
    assert held == budget.waiting == 0
    async with budget.hold(100):
        pass
