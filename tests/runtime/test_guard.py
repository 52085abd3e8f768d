"""The guard: normal traffic keeps its cascade, and no stream costs more than a tenth above the static policy."""

import random
import sys
from typing import Callable, Dict, List, Tuple

import numpy as np
import pytest

from wenet_runtime.guard import (
    BURST,
    CLIENTS,
    FALSE_ALARMS,
    PAUSE,
    TRICKLE,
    Account,
    Guard,
    ratios,
    requests_to_alarm,
)

WINDOW = 200
# A rule's share and the first mode's cost: all that save time in the mean, up to the brink.
RULES = [(0.05, 0.2), (0.3, 0.25), (0.3, 0.69), (0.45, 0.5), (0.47, 0.41), (0.58, 0.3), (0.55, 0.44)]

# (number of the request, whether the guard allowed the last one) → client, and whether it would escalate.
Stream = Callable[[int, bool], Tuple[str, bool]]


def costs(guard: Guard, stream: Stream, requests: int, share: float, cost: float) -> List[float]:
    """What each request takes, as a share of the second mode's time."""
    found, allowed = [], True
    for number in range(requests):
        client, escalated = stream(number, allowed)
        allowed = guard.allows(client)
        if allowed:
            guard.observe(client, escalated, share, cost)
        found.append(cost + escalated if allowed else 1.0)
    return found


def worst_window(found: List[float]) -> float:
    """The greatest mean over any 200 requests or more; longer stretches are made of those below 400."""
    sums = np.concatenate([[0.0], np.cumsum(found)])
    return max(
        float((sums[size:] - sums[:-size]).max()) / size for size in range(WINDOW, min(2 * WINDOW, len(found)) + 1)
    )


def always(number: int, allowed: bool) -> Tuple[str, bool]:
    return "one", True


@pytest.mark.parametrize(("share", "cost"), RULES[:-1])
def test_a_stream_that_always_escalates_raises_the_alarm_within_50_requests(share: float, cost: float) -> None:
    for clients in (1, 3, 10**6):
        guard, count = Guard(), 0
        while not guard.state.alarms:
            client = str(count % clients)
            assert guard.allows(client)
            guard.observe(client, True, share, cost)
            count += 1
        assert count <= requests_to_alarm(share) <= 50


@pytest.mark.parametrize(("share", "cost"), RULES)
def test_no_stream_costs_more_than_a_tenth_above_the_static_policy_over_any_200_requests(
    share: float, cost: float
) -> None:
    draw = random.Random(0)

    def mixed(rate: float, clients: int) -> Stream:
        return lambda number, allowed: (str(draw.randrange(clients)), draw.random() < rate)

    def patient(number: int, allowed: bool) -> Tuple[str, bool]:  # behaves until it has tokens, then attacks
        return "one", number % 700 > 500

    def new_names(number: int, allowed: bool) -> Tuple[str, bool]:
        return str(number), True

    def until_refused(number: int, allowed: bool) -> Tuple[str, bool]:
        return "one" if allowed else str(number), True

    streams = [always, patient, new_names, until_refused]
    streams += [mixed(rate, clients) for rate in (share, share * 1.3, 0.6, 0.8, 0.95) for clients in (1, 20)]
    for stream in streams:
        assert worst_window(costs(Guard(), stream, 2000, share, cost)) <= 1.1


def test_where_a_rule_hardly_saves_tokens_end_the_cascade_before_the_alarm_does() -> None:
    guard, (share, cost) = Guard(), RULES[-1]
    found = costs(guard, lambda number, allowed: (str(number), True), 50, share, cost)
    assert found[-1] == 1.0
    assert guard.state.alarms == 0


def test_without_the_guard_such_a_stream_does_cost_more() -> None:
    class NoGuard(Guard):
        def allows(self, client: str, rows: int = 1) -> bool:
            return True

    assert worst_window(costs(NoGuard(), always, 1000, 0.3, 0.3)) == pytest.approx(1.3)


def test_normal_traffic_keeps_its_cascade() -> None:
    for share, cost in ((0.05, 0.3), (0.3, 0.3), (0.5, 0.3)):
        draw = random.Random(1)
        guard, allowed = Guard(), 0
        for _ in range(30_000):
            if guard.allows("one"):
                allowed += 1
                guard.observe("one", draw.random() < share, share, cost)
        assert guard.state.alarms == 0
        assert allowed > 0.99 * 30_000


def test_the_alarm_is_as_rare_in_a_normal_stream_as_is_claimed() -> None:
    # The claim is a bound for the greatest share that is normal; at a false-alarm rate that a test can see.
    draw, rate, requests = random.Random(2), 1e-3, 100_000
    for share in (0.05, 0.3, 0.5):
        normal, more, less = ratios(share)
        account = Account(rate)
        for _ in range(requests):
            account.left = 0  # no pauses: every request counts
            account.observe(draw.random() < normal, 0.0, more, less)
        assert 0 < account.alarms <= rate * requests


def test_after_an_alarm_the_cascade_pauses_is_tried_and_pauses_longer_while_the_attack_goes_on() -> None:
    guard, tries, refused = Guard(), [], 0
    for _ in range(20_000):
        if guard.allows("one"):
            if refused:
                tries.append(refused)
                refused = 0
            guard.observe("one", True, 0.3, 0.4)
        else:
            refused += 1
    assert tries[0] >= PAUSE
    assert tries == sorted(tries)
    assert tries[-1] >= 8 * PAUSE


def test_when_the_attack_ends_the_cascade_comes_back_for_good() -> None:
    guard, draw = Guard(), random.Random(3)
    costs(guard, always, 1000, 0.3, 0.4)
    assert guard.state.alarms > 0
    later = costs(guard, lambda number, allowed: ("one", draw.random() < 0.3), 4000, 0.3, 0.4)
    assert np.mean(later[-2000:]) == pytest.approx(0.7, abs=0.03)
    assert not guard.alarm


def test_one_attacker_among_many_clients_loses_the_cascade_and_the_others_keep_it() -> None:
    guard, draw, allowed = Guard(), random.Random(4), {"bad": 0, "good": 0}
    for number in range(20_000):
        bad = number % 4 == 0
        client = "bad" if bad else f"good {draw.randrange(30)}"
        if guard.allows(client):
            allowed["bad" if bad else "good"] += 1
            guard.observe(client, bad or draw.random() < 0.3, 0.3, 0.4)
    assert not guard.alarm
    assert allowed["bad"] < 0.05 * 5_000
    assert allowed["good"] > 0.99 * 15_000


def test_a_rule_that_saves_nothing_here_ends_in_the_static_policy() -> None:
    found = costs(Guard(), lambda number, allowed: ("one", number % 5 == 0), 3000, 0.2, 1.0)
    assert np.mean(found[1000:]) < 1.02


def test_a_request_of_more_rows_than_tokens_is_refused_whole() -> None:
    guard = Guard()
    assert guard.allows("one", int(BURST))
    assert not guard.allows("one", int(BURST) + 1)
    assert guard.state.tokens == BURST


def batch_costs(ask: Callable[[Guard, Dict[str, int]], bool], share: float, cost: float) -> List[float]:
    """What each row takes of batches of many clients, all of which always escalate."""
    guard, draw = Guard(), random.Random(6)
    found: List[float] = []
    while len(found) < 4000:
        asked = {str(draw.randrange(10**6)): 1 for _ in range(draw.choice([1, 2, 16]))}
        allowed = ask(guard, asked)
        for client, rows in asked.items():
            for _ in range(rows if allowed else 0):
                guard.observe(client, True, share, cost)
        found += [cost + 1.0 if allowed else 1.0] * sum(asked.values())
    return found


def test_the_bound_holds_for_batches_of_many_clients_and_would_not_if_each_were_asked_alone() -> None:
    def together(guard: Guard, asked: Dict[str, int]) -> bool:
        return guard.allows_all(asked)

    def each(guard: Guard, asked: Dict[str, int]) -> bool:
        answers = [guard.allows(client, rows) for client, rows in asked.items()]
        return all(answers)

    for share, cost in RULES:
        assert worst_window(batch_costs(together, share, cost)) <= 1.1
    assert max(worst_window(batch_costs(each, share, cost)) for share, cost in RULES) > 1.1


def test_a_batch_needs_a_token_for_each_row_of_all_and_of_each_client() -> None:
    guard = Guard()
    for _ in range(6):
        assert guard.allows_all({"one": 1})
        guard.observe("one", True, 0.6, 1.0)  # costs a whole token
    assert guard.state.tokens == BURST - 6
    assert guard.allows_all({"one": 6, "two": 6})
    assert not guard.allows_all({"one": 7, "two": 6})
    assert guard.state.tokens == pytest.approx(BURST - 6 + 13 * TRICKLE)  # the refusal counts once
    guard.observe("two", True, 0.6, 1.0)
    assert not guard.allows_all({"one": 12, "two": 0})


def test_a_batch_of_more_rows_than_tokens_is_refused_and_counts_for_nobody() -> None:
    guard = Guard()
    assert not guard.allows_all({str(client): 1 for client in range(int(BURST) + 1)})
    assert (guard.state.tokens, guard.state.clients) == (BURST, 0)
    while not guard.alarm:
        guard.observe("one", True, 0.05, 0.2)
    left = guard._whole.left
    assert not guard.allows_all({"one": PAUSE, "two": PAUSE})
    assert guard._whole.left == left


def test_a_batch_raises_one_alarm_and_its_other_rows_neither_another_nor_an_end_of_it() -> None:
    guard = Guard()
    for escalated in [True] * 40 + [False] * 40:
        guard.observe("one", escalated, 0.05, 0.2)
    assert guard.state.alarms == 2  # the client's and that of all
    for account in (guard._whole, guard._account("one")):
        assert account.left == PAUSE
        assert account._pause == 2 * PAUSE  # what follows upon a try that fails


def test_refused_requests_earn_a_trickle_so_that_the_cascade_is_tried_again() -> None:
    guard = Guard()
    while guard.allows("one"):
        guard.observe("one", True, 0.6, 0.4)
    assert not guard.alarm
    waits = next(count for count in range(10_000) if guard.allows("one"))
    assert waits <= 1 / TRICKLE


def test_memory_is_bounded_by_the_number_of_clients() -> None:
    guard = Guard(clients=50)
    for number in range(5_000):
        if guard.allows(str(number)):
            guard.observe(str(number), False, number / 5_000, 0.3)
    assert guard.state.clients == 50
    assert len(guard._ratios) <= 52
    assert sys.getsizeof(Account(FALSE_ALARMS)) * CLIENTS < 1 << 20


def test_shares_at_the_ends_are_possible() -> None:
    draw = random.Random(5)

    def hardly(number: int, allowed: bool) -> Tuple[str, bool]:
        return "one", draw.random() < 0.005

    for share in (0.0, 1.0):
        assert worst_window(costs(Guard(), always, 2000, share, 0.2)) <= 1.1
        assert np.mean(costs(Guard(), hardly, 2000, share, 0.2)) < 0.3
