"""A check's status, and what to do, taken from an error's text."""

from typing import List

import pytest

from wenet_runtime.service.check import FAIL, OK, SKIPPED, WARN, Check, parts, problem, worst


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], OK),
        ([OK, SKIPPED], OK),
        ([SKIPPED], OK),
        ([OK, WARN, SKIPPED], WARN),
        ([FAIL, WARN, OK], FAIL),
    ],
)
def test_the_worst_counts_and_what_is_skipped_does_not(statuses: List[str], status: str) -> None:
    assert worst([Check("x", one, "") for one in statuses]) == status


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        ("permission: /sys/a may not be read: run as root", "permission: /sys/a may not be read", "run as root"),
        ("it broke", "it broke", ""),
        ("two\nlines: mend  both", "two lines", "mend both"),
        ("mount -v /a:/b:ro", "mount -v /a:/b:ro", ""),
    ],
)
def test_what_to_do_stands_after_the_last_colon(text: str, found: str, remedy: str) -> None:
    assert parts(text) == (found, remedy)
    assert problem("x", WARN, text) == Check("x", WARN, found, remedy)


def test_of_what_is_skipped_nothing_is_to_be_done() -> None:
    assert problem("x", SKIPPED, "no sensor: this is\nno Jetson") == Check("x", SKIPPED, "no sensor: this is no Jetson")
