"""What is served can be replaced while requests are under way."""

import asyncio

from tests.runtime.fakes import SLOW_MS, Client, SettableBackend, make_service, ones, v2_body
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app


def test_a_request_is_answered_by_what_was_active_when_it_came(bundle: Bundle) -> None:
    old_backend, new_backend = SettableBackend(bundle), SettableBackend(bundle)
    old, new = (make_service(bundle, one, medians_ms=SLOW_MS) for one in (old_backend, new_backend))
    client, before = Client(create_app(old)), old.active
    old_backend.hold()

    async def swapped_meanwhile() -> None:
        first = asyncio.ensure_future(client.arequest("POST", "/infer", json=v2_body(ones(value=1.0))))
        while not old_backend.entered.is_set():
            await asyncio.sleep(0.001)
        old.active = new.active
        second = await client.arequest("POST", "/infer", json=v2_body(ones(value=2.0)))
        old_backend.release()
        assert [second.status_code, (await first).status_code] == [200, 200]

    asyncio.run(swapped_meanwhile())
    assert old_backend.first_numbers == [1.0]
    assert new_backend.first_numbers == [2.0]
    assert len(before.decisions.log.latest()) == len(new.decisions.log.latest()) == 1
    for one in (before.runtime, new.runtime):
        one.close(timeout_s=5)


def test_what_is_read_of_a_service_is_what_is_active(bundle: Bundle) -> None:
    one, other = (make_service(bundle, SettableBackend(bundle)) for _ in range(2))
    runtimes = [one.runtime, other.runtime]
    one.active = other.active
    assert (one.bundle, one.runtime, one.decisions) == (other.bundle, other.runtime, other.decisions)
    assert one.runtime is runtimes[1]
    for runtime in runtimes:
        runtime.close(timeout_s=5)
