"""The order in which runs start."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from citeflow.platform.backends.base import Resources
from citeflow.platform.queue import Standing, Waiting, choose, order

QUOTA = Resources(cores=2, memory=100, disk=0)


def standing(waiting, *, running=(), turns=None, quota=QUOTA, cores=4):
    users = {run.user for run in (*waiting, *running)}
    return Standing(
        waiting=waiting,
        running=running,
        last_turn=turns or {},
        quotas=dict.fromkeys(users, quota),
        capacity=Resources(cores=cores, memory=1_000, disk=0),
    )


def run(name, *, cores=1, memory=10):
    return Waiting(id=name, user=name[0], cores=cores, memory=memory)


def test_choose_goes_round_the_users():
    waiting = [run("a1"), run("a2"), run("b1")]
    assert choose(standing(waiting)).id == "a1"
    assert choose(standing(waiting, turns={"a": 1})).id == "b1"
    assert choose(standing(waiting, turns={"a": 1, "b": 2})).id == "a1"


def test_choose_passes_over_who_is_at_the_quota():
    running = [run("a0", cores=2)]
    assert choose(standing([run("a1"), run("b1")], running=running)).id == "b1"
    assert choose(standing([run("a1")], running=running)) is None
    assert choose(standing([run("a1", memory=101)])) is None


def test_choose_lets_nobody_go_before_who_waits_for_the_machine():
    running = [run("c0"), run("d0"), run("e0")]
    waiting = [run("a1", cores=2), run("b1")]
    assert choose(standing(waiting, running=running)) is None
    assert choose(standing(waiting, running=running[1:])).id == "a1"


def test_choose_starts_nothing_without_an_environment():
    without = Standing(waiting=[run("a1")], running=[], last_turn={}, quotas={}, capacity=None)
    assert choose(without) is None


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40))
def test_order_gives_each_user_a_turn_before_anybody_has_the_next(users):
    waiting = [run(f"{user}{number}") for number, user in enumerate(users)]
    ordered = order(standing(waiting))
    assert sorted(ordered) == sorted(each.id for each in waiting)
    for user in set(users):
        own = [each for each in ordered if each[0] == user]
        assert own == [each.id for each in waiting if each.user == user]
    turns = {user: [n for n, each in enumerate(ordered) if each[0] == user] for user in users}
    for one, other in itertools.permutations(turns, 2):
        for before, after in itertools.pairwise(turns[one]):
            between = [turn for turn in turns[other] if before < turn < after]
            has_more = any(turn > before for turn in turns[other])
            assert len(between) == 1 or not has_more


def test_two_hundred_runs_of_ten_users_start_in_turns(make_platform):
    platform = make_platform(cores=3)
    accounts, runs = platform.services.accounts, platform.services.runs
    users = [f"user{number}" for number in range(10)]
    from citeflow.platform.accounts import Account
    from citeflow.platform.schema import Submission

    submitted = {}
    for user in users:
        accounts.add(user, size="S")
    for number in range(20):  # the first users submit all of theirs before the last ones
        for user in users:
            account = Account(name=user, role="user", size="S")
            wanted = Submission(dataset="synthetic", name=f"r{number}", preset="default")
            submitted[runs.submit(account, wanted, f"{user}{number}").id] = (user, number)
    ended = 0
    while ended < 200:
        platform.tick()
        for run_id, attempt in platform.backend.started[ended:]:
            platform.backend.end(run_id, attempt=attempt)
        ended = len(platform.backend.started)
    started = [submitted[run_id] for run_id, _ in platform.backend.started]
    assert len(set(started)) == 200
    for turn in range(20):
        of_turn = started[10 * turn : 10 * turn + 10]
        assert sorted(of_turn) == sorted((user, turn) for user in users)
