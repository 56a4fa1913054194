"""Blind tests on the listening page, completed in a real browser."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.browser import Open, card, chosen, wait_for_position, wait_until
from support.report import CLIPS, REFERENCE, SYSTEMS, pitch_hz

from wavegen.listening.ratings import summarize_ratings

NAMES = (REFERENCE, *SYSTEMS)
TELLTALES = ("studio", "quokka", "zephyr", "onerror", "hacked")  # parts of the systems' names


def assert_blind(page: Any) -> None:
    """Assert that nothing in the document names a system or shows a picture."""
    whole = page.evaluate("document.title + document.documentElement.outerHTML.replace(/<script>.*<.script>/s, '')")
    assert [word for word in TELLTALES if word in whole] == []
    assert page.locator("article.clip, img").count() == 0


# A listener with perfect hearing: whether two sounds are equal.
SAME = """async ([first, second]) => {
  const buffers = (await Deck.heard.load(audioContext())).map((buffer) => buffer.getChannelData(0));
  const [a, b] = [buffers[first], buffers[second]];
  return a.length === b.length && a.every((sample, i) => sample === b[i]);
}"""

# The frequency of a sound, from its zero crossings.
PITCH = """async (place) => {
  const buffer = (await Deck.heard.load(audioContext()))[place];
  const crossings = buffer.getChannelData(0).filter((sample, i, all) => i && sample < 0 !== all[i - 1] < 0).length;
  return crossings / 2 / buffer.duration;
}"""


def set_seed(page: Any, seed: int) -> None:
    """Fix the order of the next test, because a random one may happen to leave everything in its place."""
    page.evaluate(f"void (crypto.getRandomValues = (numbers) => numbers.fill({seed}))")


def finish_and_save(page: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the results").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_an_abx_test_can_be_completed(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.get_by_role("link", name="Blind test").click()
    page.get_by_label("Your name").fill("Ann O'Neill")
    page.get_by_label("Trials").fill("5")
    page.get_by_label("First system").select_option(SYSTEMS[1])
    page.get_by_label("Second system").select_option(REFERENCE)
    set_seed(page, 7)
    page.get_by_role("button", name="Start ABX").click()
    pitches = []
    for trial in range(5):
        assert page.locator("h2").first.inner_text() == f"Trial {trial + 1} of 5"
        assert_blind(page)
        assert not page.get_by_role("navigation").is_visible()
        page.keyboard.press("Space")
        wait_for_position(page, 0.05)
        page.keyboard.press("3")
        assert chosen(page) == [2]
        assert (
            page.evaluate("Deck.heard.duration") == 1.5
        )  # that of the shortest sound, so that durations reveal nothing
        assert page.evaluate("Deck.heard.gains") != [1, 1, 1]  # loudness is matched
        page.evaluate("location.hash = '#compare'")  # does not leave the test
        wait_until(page, "location.hash === '#blind'")
        assert_blind(page)
        pitches.append([page.evaluate(PITCH, place) for place in range(2)])
        is_a, is_b = page.evaluate(SAME, [0, 2]), page.evaluate(SAME, [1, 2])
        assert is_a != is_b
        page.get_by_role(
            "button", name="X is A" if is_a != (trial == 4) else "X is B"
        ).click()  # the last answer is wrong
    assert page.locator(".outcome").inner_text() == "4 of 5 right"
    assert "by guessing is 0.188" in page.locator(".results").inner_text()  # 6 / 32
    assert SYSTEMS[1] in page.locator(".results").inner_text()
    path, saved = finish_and_save(page, tmp_path)
    assert path.name == f"ratings-abx-{saved['page']['id']}-Ann-O-Neill-{saved['seed']:x}.json"
    assert (saved["kind"], saved["listener"], saved["complete"]) == ("abx", "Ann O'Neill", True)
    assert saved["systems"] == [SYSTEMS[1], REFERENCE]
    assert saved["seed"] == 7
    assert {trial["a"] for trial in saved["trials"]} == set(saved["systems"])  # A is not always the same system
    assert {trial["x"] for trial in saved["trials"]} == {"a", "b"}
    assert all({trial["a"], trial["b"]} == {SYSTEMS[1], REFERENCE} for trial in saved["trials"])
    heard = [[pitch_hz(trial["clip"], trial[letter]) for letter in "ab"] for trial in saved["trials"]]
    assert [pytest.approx(pair, abs=3) for pair in heard] == pitches
    assert {trial["clip"] for trial in saved["trials"]} == set(CLIPS)
    lines = summarize_ratings([path]).splitlines()
    assert lines[0] == f"ABX, {SYSTEMS[1]} against {REFERENCE}"
    assert lines[2].split() == ["Ann", "O'Neill", "4", "5", "80%", "38%", "to", "96%", "0.188"]
    page.get_by_role("link", name="Compare").click()
    card(page).wait_for()  # appears once the browser has reported the new address


def test_a_rating_test_can_be_completed(opened: Open, tmp_path: Path) -> None:
    page = opened(at="#blind")
    page.get_by_label("Include an anchor").check()
    set_seed(page, 7)
    page.get_by_role("button", name="Start rating").click()
    pitches = []
    for clip in range(3):
        assert page.locator("h2").first.inner_text() == f"Clip {clip + 1} of 3"
        assert_blind(page)
        sliders = page.locator(".row input").all()
        assert len(sliders) == 4  # two systems, the hidden reference, the anchor
        page.get_by_role("button", name="Reference").click()
        wait_for_position(page, 0.05)
        equal = [page.evaluate(SAME, [0, place + 1]) for place in range(4)]
        assert equal.count(True) == 1
        pitches.append([page.evaluate(PITCH, place + 1) for place in range(4)])
        page.get_by_role("button", name="Next clip" if clip < 2 else "Finish").click()
        assert page.get_by_role("alert").filter(has_text="Not rated yet: A, B, C, D").is_visible()
        for place, slider in enumerate(sliders):
            slider.fill("100" if equal[place] else str(10 * (place + 1)))
            assert chosen(page) == [place + 1]  # a sound is heard while it is rated
        page.get_by_role("button", name="Next clip" if clip < 2 else "Finish").click()
    path, saved = finish_and_save(page, tmp_path)
    for trial, heard in zip(saved["trials"], pitches, strict=True):
        systems = [REFERENCE if rating["role"] == "anchor" else rating["system"] for rating in trial["ratings"]]
        assert heard == pytest.approx([pitch_hz(trial["clip"], system) for system in systems], abs=3)
        roles = {rating["role"]: rating["rating"] for rating in trial["ratings"]}
        assert roles["reference"] == 100
        assert sorted(rating["system"] for rating in trial["ratings"]) == sorted([*NAMES, "anchor 3.5 kHz"])
        others = [(place, rating) for place, rating in enumerate(trial["ratings"]) if rating["role"] != "reference"]
        assert all(rating["rating"] == 10 * (place + 1) for place, rating in others)
    orders = [[rating["system"] for rating in trial["ratings"]] for trial in saved["trials"]]
    assert orders[0] != orders[1] != orders[2]
    assert [trial["clip"] for trial in saved["trials"]] != list(CLIPS)
    text = summarize_ratings([path])
    assert f"{REFERENCE} (hidden reference)" in text
    assert "100.0  100.0 to 100.0" in text
    assert text.startswith("Ratings, 0 to 100: 1 listener, 3 clips")


def test_a_stopped_test_keeps_its_answers(opened: Open, tmp_path: Path) -> None:
    page = opened(at="#blind")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Start ABX").click()
    page.get_by_role("button", name="Stop the test").click()
    assert page.get_by_role("button", name="Start ABX").is_visible()
    page.get_by_role("button", name="Start ABX").click()
    page.get_by_role("button", name="X is A").click()
    page.get_by_role("button", name="Stop the test").click()
    _, saved = finish_and_save(page, tmp_path)
    assert (len(saved["trials"]), saved["complete"]) == (1, False)


def test_the_anchor_is_a_low_pass_of_3500_hz(opened: Open) -> None:
    gains = opened().evaluate("""async () => {
      const level = async (hertz) => {
        const buffer = new AudioBuffer({ length: 24000, sampleRate: 24000, numberOfChannels: 1 });
        buffer.getChannelData(0).forEach((_, i, samples) => (samples[i] = Math.sin((2 * Math.PI * hertz * i) / 24000)));
        const samples = (await lowPassed(buffer, 3500)).getChannelData(0).slice(12000);
        return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length * 2);
      };
      return [await level(1000), await level(3500), await level(5000)];
    }""")
    # A Butterworth filter of order 8 by the bilinear transform at 24 kHz: 3 dB down at its edge.
    warped = math.tan(math.pi * 5000 / 24000) / math.tan(math.pi * 3500 / 24000)
    assert gains == pytest.approx([1, math.sqrt(0.5), 1 / math.sqrt(1 + warped**16)], rel=0.01)
