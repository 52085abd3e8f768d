"""The page /ui in a real browser on a real daemon, its engine and meter simulated: what a person sees and does."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.supernets import write_test_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 30_000.0
TOKEN = "a-token-for-this-test"
HOSTILE = "<script>hacked=1</script><img src=x onerror=hacked=1>"
# So far apart that a crowded machine's own delays change no choice: 5, 40 and 400 ms on the simulated device.
MACS = {"m0": 48_000_000, "m1": 398_000_000, "m2": 3_998_000_000}


class Daemon:
    """`wenet-runtime` on a free port, simulated."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.log = folder / f"daemon{len(list(folder.glob('*.log')))}.log"
        command = [sys.executable, "-m", "wenet_runtime.cli", "--bundle", str(folder / "bundle"), "--port", "0"]
        simulated = [
            "--engine",
            "sim",
            "--meter",
            "sim",
            "--profile-rounds",
            "10",
            "--cache-dir",
            str(folder / "cache"),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, *simulated, *flags], stderr=log, cwd=ROOT)
        self.url = self._url()

    def _url(self) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"serving .* on (http://\S+) ", self.log.read_text())
            if found:
                return found.group(1)
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(30) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three modes that take long enough to be told apart, one of whose labels is hostile; an image."""
    path = tmp_path_factory.mktemp("ui")
    write_test_bundle(path / "bundle")
    manifest = path / "bundle" / "manifest.json"
    members = json.loads(manifest.read_text())
    for mode in members["modes"]:
        mode["macs"] = MACS[mode["id"]]
    members["labels"][:3] = [HOSTILE, "one & two", "three"]
    manifest.write_text(json.dumps(members))
    pixels = np.zeros((8, 8, 3), np.uint8)
    for name, row in (("first", 0), ("second", 3)):  # the simulated answer follows the brightest place
        shown = pixels.copy()
        shown[row, row] = 255
        Image.fromarray(shown).save(path / f"{name}.png")
    (path / "tokens").write_text(TOKEN + "\n")
    (path / "tokens").chmod(0o600)
    return path


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    served = Daemon(folder, "--budget-ms", "500")
    yield served
    served.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Within the module: while it runs, no other test of this thread could run an event loop.
    with playwright.sync_playwright() as driver:
        # A test's page is our own, so the browser needs no sandbox; without it, it also starts as root.
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


class Screen:
    """One browser tab that remembers what went wrong in it."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
        )
        self.page.goto(f"{url}/ui")

    def sees(self, selector: str, text: "str | re.Pattern[str]") -> None:
        playwright.expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)

    def asks(self, image: Path) -> None:
        """Ask for an answer that comes however crowded the machine is."""
        self.page.locator("#on-miss").select_option("late")
        self.sets("#budget-ms", 3)
        self.page.locator("#file").set_input_files(image)
        self.sees("#answer", "answered, because")

    def sets(self, slider: str, value: float) -> None:
        """Move a slider as a hand would leave it."""
        self.page.locator(slider).fill(str(value))

    def changes(self, path: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Let what the server says of itself be changed on its way."""

        def altered(route: Any) -> None:
            reply = route.fetch()
            members = reply.json()
            change(members)
            route.fulfill(response=reply, json=members)

        self.page.route(f"**{path}", altered)


@pytest.fixture
def open_screen(browser: Any) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def opened(url: str, **options: Any) -> Screen:
        screens.append(Screen(browser, url, **options))
        return screens[-1]

    yield opened
    for screen in screens:
        screen.page.unroute_all(behavior="ignoreErrors")
        screen.context.close()


@pytest.fixture
def screen(open_screen: Callable[..., Screen], daemon: Daemon) -> Iterator[Screen]:
    opened = open_screen(daemon.url)
    opened.sees("#state", "Live")
    yield opened
    assert opened.wrong == []


def test_it_shows_what_the_daemon_says_of_itself(screen: Screen, folder: Path) -> None:
    screen.sees("#model", "tiny · 3 modes · engine sim")
    screen.sees("#simulated", "Simulated engine: answers are made up")
    screen.sees("#watts", "5 W")
    screen.sees("#watts-more", "simulated")
    screen.sees("#queue", "0 waiting")
    assert screen.page.locator("#modes tbody tr").count() == 3
    screen.asks(folder / "first.png")
    screen.sees("#mode", re.compile("m[012]"))
    screen.sees("#why", "answered last, because")
    screen.sees("#hits", "%")
    screen.sees("#budget svg .limit-text", "the server's budget 500 ms")
    screen.sees("#modes tr.now", "active")
    assert screen.page.locator("#frontier .ring").count() == 3
    assert screen.page.locator("#frontier .active").count() == 1
    screen.sees("#decisions li >> nth=0", re.compile(r"within 1000 ms: m\d.* in .* ms \(predicted"))


def test_an_image_that_is_dropped_is_answered_and_another_is_answered_otherwise(screen: Screen, folder: Path) -> None:
    answers = []
    screen.page.locator("#on-miss").select_option("late")
    for name in ("first.png", "second.png"):
        put = screen.page.evaluate_handle(
            """(bytes) => { const all = new DataTransfer();
            all.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" })); return all; }""",
            list((folder / name).read_bytes()),
        )
        for event in ("dragenter", "dragover", "drop"):
            screen.page.dispatch_event("#drop", event, {"dataTransfer": put})
        screen.sees("#drop-text", "dropped.png")
        if answers:
            playwright.expect(screen.page.locator(".best .label >> nth=0")).not_to_have_text(answers[0])
        screen.sees("#answer", "answered, because")
        answers.append(screen.page.locator(".best .label >> nth=0").text_content())
        assert screen.page.locator("#preview").is_visible()
    screen.sees("#answer .verdict", "Budget")
    screen.sees("#answer .facts", "Predicted")
    screen.sees("#answer .facts", "mJ (sim)")
    assert screen.page.locator(".best li").count() == 5


def test_the_budget_s_slider_changes_the_mode_and_the_floor_s_refuses_in_words(screen: Screen, folder: Path) -> None:
    screen.asks(folder / "first.png")
    for exponent, shown, mode in ((3, "1000 ms", "m2"), (2.5, "316 ms", "m1"), (1.3, "20 ms", "m0")):
        screen.sets("#budget-ms", exponent)
        screen.sees("#budget-out", shown)
        _until(screen, lambda mode=mode: screen.page.locator("#answer .mode strong").all_text_contents() == [mode])
    screen.page.locator("#on-miss").select_option("reject")
    screen.sets("#floor", 89.5)
    screen.sees("#floor-out", "89.5 %")
    screen.sees("#answer .verdict", "Budget cannot be met on this device (422)")
    screen.sees("#answer", "Give it more time, or lower the least accuracy.")
    screen.wrong.clear()  # the browser itself notes a reply that is an error
    screen.sees("#decisions li.refused >> nth=0", "refused, because no allowed mode meets what was asked")


def _until(screen: Screen, condition: Callable[[], bool]) -> None:
    """Ask again until something is so: on a crowded machine one answer may come of another mode."""
    end = time.monotonic() + PATIENCE_MS / 1e3
    while time.monotonic() < end:
        screen.page.wait_for_timeout(400)
        if condition():
            return
        screen.page.locator("#again").click()
    raise AssertionError(screen.page.locator("#answer").text_content())


def test_what_is_no_image_is_refused_in_words(screen: Screen) -> None:
    screen.page.locator("#file").set_input_files({"name": "x.txt", "mimeType": "text/plain", "buffer": b"no image"})
    screen.sees("#answer .verdict", "Unsupported media type (415)")
    screen.sees("#answer", "Choose a JPEG or a PNG.")
    screen.wrong.clear()


def test_all_can_be_done_with_the_keyboard(screen: Screen) -> None:
    keyboard = screen.page.keyboard

    def reach(name: str) -> None:
        for _ in range(20):
            keyboard.press("Tab")
            if screen.page.evaluate("document.activeElement.id") == name:
                outline = screen.page.evaluate(
                    "getComputedStyle(document.activeElement.closest('.button') || document.activeElement).outlineStyle"
                )
                assert outline != "none", f"one does not see that {name} has the focus"
                return
        raise AssertionError(f"{name} cannot be reached")

    screen.page.locator("#on-miss").select_option("late")  # an answer comes however crowded the machine is
    screen.page.evaluate("document.activeElement.blur()")
    for name in ("file", "pattern"):
        reach(name)
    keyboard.press("Enter")
    screen.sees("#answer", "answered, because")
    reach("budget-ms")
    before = screen.page.locator("#budget-out").text_content()
    keyboard.press("End")
    screen.sees("#budget-out", "1000 ms")
    assert before != "1000 ms"
    screen.sees("#answer", "m2 answered")
    reach("floor")
    reach("on-miss")
    reach("again")


def test_every_control_has_a_name_and_the_answer_is_announced(screen: Screen) -> None:
    for role, name in (
        ("button", "Use a test pattern"), ("slider", "Budget"), ("slider", "Least accuracy"),
        ("combobox", "If nothing fits"), ("button", "Ask again"), ("table", ""), ("img", "Accuracy over latency"),
    ):  # fmt: skip
        assert screen.page.get_by_role(role, name=name).count() >= 1, name
    assert screen.page.locator("#answer").get_attribute("aria-live") == "polite"
    assert "100 milliseconds" in (screen.page.locator("#budget-ms").get_attribute("aria-valuetext") or "")


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_on_a_phone_nothing_lies_beside_the_screen(open_screen: Any, daemon: Daemon, folder: Path, path: str) -> None:
    phone = open_screen(daemon.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    if path == "/ui":
        phone.asks(folder / "first.png")
    else:
        phone.page.goto(f"{daemon.url}/docs")
        phone.sees("main", "/v2/health/ready")
    widths = phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths == [360, 360]
    assert phone.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_light_and_in_dark(open_screen: Any, daemon: Daemon, folder: Path, scheme: str) -> None:
    shown = open_screen(daemon.url, color_scheme=scheme)
    shown.asks(folder / "first.png")
    card = _colour(shown, ".card", "backgroundColor")
    assert (_luminance(card) > 0.5) == (scheme == "light")
    for selector in ("#why", "#model", ".verdict", ".decisions .sign", "#state", "footer a", ".quiet"):
        text = _colour(shown, selector, "color")
        one, other = sorted((_luminance(text), _luminance(card)))
        assert (other + 0.05) / (one + 0.05) >= 4.5, selector


def _colour(screen: Screen, selector: str, which: str) -> list[float]:
    found = screen.page.locator(selector).first.evaluate(f"(one) => getComputedStyle(one).{which}")
    return [float(one) / 255 for one in re.findall(r"[\d.]+", found)[:3]]


def _luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_nothing_moves_where_that_is_not_wanted(open_screen: Any, daemon: Daemon, folder: Path) -> None:
    times = {}
    for motion in ("no-preference", "reduce"):
        shown = open_screen(daemon.url, reduced_motion=motion)
        shown.asks(folder / "first.png")
        spot = shown.page.locator("#frontier .active")
        times[motion] = spot.evaluate("(one) => getComputedStyle(one).transitionDuration")
    assert times == {"no-preference": "0.6s", "reduce": "0s"}


def test_a_label_or_a_reason_that_is_markup_stays_text(screen: Screen, folder: Path) -> None:
    def hostile(members: dict[str, Any]) -> None:
        members["modes"][0]["out_of_service"] = HOSTILE
        members["model"] = HOSTILE
        for one in members["decisions"]:
            one["reason"] = HOSTILE

    screen.changes("/modes", hostile)
    screen.asks(folder / "first.png")
    screen.sees("#answer .best", HOSTILE)
    screen.sees("#model", HOSTILE)
    screen.sees("#modes", f"out: {HOSTILE}")
    screen.sees("#decisions", f"because {HOSTILE}")
    assert screen.page.evaluate("typeof hacked") == "undefined"
    assert screen.page.locator("main script, main img").count() == 0


@pytest.mark.parametrize(
    ("said", "big", "small"),
    [
        (
            {"status": "stale", "watts": 4.2, "age_s": 12.0, "detail": "the child ended: install tegrastats"},
            "was 4.20 W",
            "12 s old. the child ended: install tegrastats",
        ),
        (
            {"status": "unavailable", "watts": None, "age_s": None, "rail": None, "detail": "chmod a+r the counter"},
            "unknown",
            "unavailable: sim. chmod a+r the counter",
        ),
        ({"status": "ok", "watts": None, "rail": None, "source": "none", "detail": ""}, "unknown", "--meter"),
    ],
)
def test_watts_that_are_not_of_now_are_shown_as_that_and_never_as_0(
    screen: Screen, said: dict[str, Any], big: str, small: str
) -> None:
    screen.changes("/v2/health", lambda members: members["meter"].update(said))
    playwright.expect(screen.page.locator("#watts")).to_have_text(big, timeout=PATIENCE_MS)
    screen.sees("#watts-more", small)
    assert "old" in (screen.page.locator("#watts").locator("..").get_attribute("class") or "").split()


def test_heat_is_shown_and_alarms_when_it_holds_the_device_down(screen: Screen) -> None:
    hot = {"temperature_c": 81.25, "throttled": True, "seconds_to_limit": 30.0, "power_setting": "MAXN"}
    screen.changes("/modes", lambda members: members["device"].update(hot))
    screen.sees("#heat", "81.3 °C")
    screen.sees("#heat-more", "Throttled: heat holds the clocks down. At its limit in 30 s. Power setting MAXN.")


def test_a_server_that_does_not_answer_is_said_to_since_when_and_comes_back(screen: Screen) -> None:
    screen.page.route("**/modes", lambda route: route.abort())
    screen.sees("#state", re.compile(r"Not reachable since \d"))
    since = screen.page.locator("#state").text_content()
    screen.page.wait_for_timeout(1500)  # the clock that is shown has seconds
    with screen.page.expect_request("**/modes"):
        pass
    assert screen.page.locator("#state").text_content() == since
    screen.page.unroute("**/modes")
    screen.sees("#state", "Live")
    screen.wrong.clear()


def test_a_page_that_nobody_sees_does_not_ask(screen: Screen) -> None:
    asked: list[str] = []
    screen.page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
    screen.page.evaluate("window.away = true")
    screen.page.wait_for_timeout(1500)  # what was under way ends
    screen.page.on("request", lambda request: asked.append(request.url))
    screen.page.wait_for_timeout(2500)
    assert asked == []
    with screen.page.expect_request("**/modes"):
        screen.page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_server_with_tokens_is_asked_once_it_has_one_which_stays_in_the_tab(open_screen: Any, folder: Path) -> None:
    daemon = Daemon(folder, "--token-file", str(folder / "tokens"))
    try:
        shown = open_screen(daemon.url)
        shown.sees("#state", "A token is needed")
        shown.page.locator("#token").fill("wrong" * 5)
        shown.page.keyboard.press("Enter")
        shown.sees("#login-error", "does not know this token")
        assert shown.page.evaluate("sessionStorage.length") == 0
        shown.page.locator("#token").fill(TOKEN)
        shown.page.keyboard.press("Enter")
        shown.sees("#state", "Live")
        assert shown.page.locator("#login").is_hidden()
        shown.page.locator("#on-miss").select_option("late")
        shown.page.locator("#pattern").click()
        shown.sees("#answer", "answered, because")
        assert TOKEN not in shown.page.url
        assert shown.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        shown.page.reload()
        shown.sees("#state", "Live")
        playwright.expect(shown.page.locator("#admin")).to_be_visible()
        shown.page.on("dialog", lambda dialog: dialog.accept())
        shown.page.locator("#rollback").click()
        shown.sees("#admin-said", "(409)")  # there is no bundle before the first
        assert not [one for one in shown.wrong if "Failed to load resource" not in one]
        shown.page.locator("#drain").click()
        assert daemon.process.wait(PATIENCE_MS / 1e3) == 0
        shown.sees("#state", "Not reachable since")
    finally:
        daemon.close()


@pytest.mark.parametrize(("status", "there"), [(200, True), (403, False)])
def test_only_who_may_administer_sees_how(open_screen: Any, daemon: Daemon, status: int, there: bool) -> None:
    shown = open_screen(daemon.url)
    shown.page.route("**/admin/policy", lambda route: route.fulfill(status=status, json={}))
    asked: list[str] = []
    shown.page.route("**/admin/rollback", lambda route: (asked.append(route.request.method), route.fulfill(json={})))
    shown.sees("#state", "Live")
    assert shown.page.locator("#admin").is_hidden()
    shown.page.evaluate(f"sessionStorage.setItem('wenet-token', '{TOKEN}')")
    with shown.page.expect_response("**/admin/policy"):
        pass
    playwright.expect(shown.page.locator("#admin")).to_be_visible(visible=there)
    if there:
        shown.page.once("dialog", lambda dialog: dialog.dismiss())
        shown.page.locator("#rollback").click()
        assert asked == []
        shown.page.once("dialog", lambda dialog: dialog.accept())
        shown.page.locator("#rollback").click()
        shown.sees("#admin-said", "Done.")
        assert asked == ["POST"]


def test_the_interface_is_described_for_people(open_screen: Any, daemon: Daemon) -> None:
    shown = open_screen(daemon.url)
    shown.page.goto(f"{daemon.url}/docs")
    shown.sees("#example-image", f"'{daemon.url}/infer?top_k=5'")
    infer = shown.page.locator("section", has=shown.page.locator("h2", has_text=re.compile("^POST/infer$")))
    playwright.expect(infer).to_contain_text("Statuses: ")
    playwright.expect(infer).to_contain_text("503")
    playwright.expect(infer.locator("pre")).to_contain_text("curl -sS -X POST --data-binary @cat.jpg")
    assert shown.wrong == []
