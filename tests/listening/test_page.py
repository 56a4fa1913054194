"""The comparison view of the listening page in a real browser, opened from a disk as a listener would open it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.browser import Open, card, chosen, position, wait_for_position, wait_until
from support.report import CLIPS, REFERENCE, SYSTEMS, mean_score, small_report

from wavegen.listening.report import write_page

# ---- playing


def test_play_advances_and_pause_keeps_the_position(opened: Open) -> None:
    page = opened()
    button = card(page).locator(".play")
    assert button.get_attribute("aria-label") == "Play"
    button.click()
    wait_for_position(page, 0.2)
    wait_until(page, "Number(document.querySelector('.clip .seek').value) > 0.25")  # the position shown advances too
    assert button.get_attribute("aria-label") == "Pause"
    button.click()
    stopped = position(page)
    assert button.get_attribute("aria-label") == "Play"
    page.wait_for_timeout(100)
    assert position(page) == stopped


def test_playing_stops_at_the_end_and_can_start_again(opened: Open) -> None:
    page = opened()
    card(page).locator(".play").click()
    wait_until(page, "Deck.heard && !Deck.heard.playing && Deck.heard.position === 0 && Deck.heard.request > 1")
    page.keyboard.press("Space")  # the button has the focus
    wait_for_position(page, 0.05)


def test_switching_keeps_the_position(opened: Open, tmp_path: Path) -> None:
    # Sounds that do not end while a busy machine clicks.
    page = opened(write_page(small_report(tmp_path, duration_s=20), tmp_path))
    card(page).locator(".play").click()
    wait_for_position(page, 0.1)
    lag = "Deck.heard.position - audioContext().currentTime"  # constant as long as nothing restarts
    before = page.evaluate(lag)
    for place in (1, 2, 0):
        card(page).locator(".pick").nth(place).click()
        assert chosen(card(page)) == [place]
        assert page.evaluate(lag) == pytest.approx(before, abs=1e-6)
    card(page).locator(".pick").nth(0).click()  # the system that is playing: pauses
    assert page.evaluate("Deck.heard.playing") is False


OFFLINE = """
async ([repeat, seek]) => {
  const [rate, length] = [8000, 8000];
  const ramp = (slope) => {
    const buffer = new AudioBuffer({ length, sampleRate: rate, numberOfChannels: 1 });
    buffer.getChannelData(0).forEach((_, i, samples) => (samples[i] = (slope * i) / length));
    return buffer;
  };
  const context = new OfflineAudioContext(1, length, rate);
  const buffers = [ramp(1), ramp(-1)];
  const deck = new Deck({ duration: 1, gains: [1, 0.5], load: async () => buffers, context: () => context });
  if (repeat) deck.setRepeat(true, repeat);
  deck.seek(seek);
  await deck.play();
  const positions = [];
  context.suspend(0.512).then(() => { positions.push(deck.position); deck.choose(1); context.resume(); });
  const rendered = await context.startRendering();
  Deck.heard = null;
  return [Array.from(rendered.getChannelData(0)), positions[0]];
}
"""


def test_switching_is_accurate_to_the_sample(opened: Open) -> None:
    """The sounds are ramps, so each sample shows its position; the second is inverted and at half the gain."""
    samples, where = opened().evaluate(OFFLINE, [None, 0])
    lead, at, settled = 160, 4096, 400
    assert samples[:lead] == [0] * lead
    assert samples[lead:at] == pytest.approx([i / 8000 for i in range(at - lead)], abs=1e-6)
    after = [-0.5 * (i - lead) / 8000 for i in range(at + settled, 8000)]
    assert samples[at + settled :] == pytest.approx(after, abs=1e-5)
    assert where == pytest.approx((at - lead) / 8000, abs=1e-6)
    steps = [abs(after - before) for before, after in zip(samples[at:], samples[at + 1 :], strict=False)]
    assert max(steps) < 0.05  # a crossfade without a click: the ramps are 0.74 apart


def test_a_selection_repeats_to_the_sample(opened: Open) -> None:
    samples, where = opened().evaluate(OFFLINE, [[0.25, 0.375], 0.3])
    heard = [0.25 + (400 + i) % 1000 / 8000 for i in range(4096 - 160)]
    assert samples[160:4096] == pytest.approx(heard, abs=1e-6)
    assert where == pytest.approx(0.25 + (400 + 3936) % 1000 / 8000, abs=1e-6)


def test_sounds_are_cut_or_padded_to_one_length(opened: Open) -> None:
    """Padding is silence at the end; a cut fades out over 5 ms, which is 40 samples at 8 kHz."""
    longer, shorter = opened().evaluate("""() => {
      const buffer = new AudioBuffer({ length: 100, sampleRate: 8000, numberOfChannels: 1 });
      buffer.getChannelData(0).fill(0.5);
      return [120, 80].map((length) => Array.from(fitted(buffer, length).getChannelData(0)));
    }""")
    assert longer == [0.5] * 100 + [0.0] * 20
    assert shorter[:40] == [0.5] * 40
    assert shorter[40:] == pytest.approx([0.5 * i / 40 for i in range(39, -1, -1)], abs=1e-6)


def test_loudness_can_be_matched(opened: Open) -> None:
    page = opened()
    page.keyboard.press("m")
    assert page.get_by_label("Match loudness").is_checked()
    card(page).locator(".play").click()
    wait_until(page, "Deck.heard && Deck.heard.playing")
    matched = page.evaluate("Deck.heard.gains")
    page.keyboard.press("m")
    assert page.evaluate("Deck.heard.gains") == [1, 1, 1]
    assert matched[0] == pytest.approx(1, abs=0.01)
    assert matched[2] != 1


def test_a_click_in_a_picture_seeks_and_a_drag_selects(opened: Open) -> None:
    page = opened()
    pictures = card(page).locator(".pictures").nth(1)
    pictures.scroll_into_view_if_needed()
    images = card(page).locator("img")
    assert images.count() == 3 + 2  # the reference has no difference from itself
    wait_until(page, "[...document.querySelectorAll('.clip img')].every((i) => i.complete && i.naturalHeight === 80)")
    box = pictures.bounding_box()
    pictures.click(position={"x": box["width"] / 2, "y": 60})
    assert chosen(card(page)) == [1]
    value = float(card(page).locator(".seek").input_value())
    assert value == pytest.approx(1.7 / 2, abs=0.02)  # the longest sound lasts 1.7 s
    y = box["y"] + 80
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=4)
    page.mouse.up()
    repeat = card(page).get_by_role("button", name="Repeat the selection")
    assert repeat.get_attribute("aria-pressed") == "true"
    repeat.click()
    assert card(page).get_by_role("button", name="Repeat").get_attribute("aria-pressed") == "false"


def test_sounds_beside_the_page_play_and_their_loss_is_reported(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    path = write_page(small_report(tmp_path / "sounds"), tmp_path / "page", largest_inside_bytes=0)
    page = opened(path)
    card(page, 1).locator(".play").click()
    wait_for_position(page, 0.1)
    shutil.rmtree(path.parent / "audio")
    lost = opened(path, faulty=True)
    card(lost).locator(".play").click()
    fault = card(lost).get_by_role("alert")
    fault.wait_for()
    assert "audio/clip-0001.js is missing" in fault.inner_text()


def test_clips_may_lack_the_reference_or_all_sounds(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    report = small_report(tmp_path / "sounds")
    first, second, third = report.clips
    without = dataclasses.replace(first, audio={system: first.audio[system] for system in SYSTEMS})
    report = dataclasses.replace(report, clips=[without, dataclasses.replace(second, audio={}), third], summary={})
    page = opened(write_page(report, tmp_path / "page"))
    assert page.get_by_text("There are no scores.").is_visible()
    assert card(page).locator(".lane").count() == 2
    card(page).locator(".play").click()
    wait_for_position(page, 0.05)
    card(page, 1).locator(".play").click()
    card(page, 2).locator(".play").click()
    wait_until(page, "Deck.heard.playing")
    page.get_by_role("link", name="Blind test").click()
    page.get_by_role("button", name="Start rating").click()
    assert page.locator("h2").first.inner_text() == "Clip 1 of 1"  # the others cannot be rated
    empty = opened(write_page(dataclasses.replace(report, clips=[]), tmp_path / "empty"))
    empty.keyboard.press("Space")
    empty.keyboard.press("ArrowDown")
    empty.get_by_role("link", name="Blind test").click()
    assert empty.get_by_text("A blind test needs at least one clip and two systems.").is_visible()


def test_a_clips_picture_is_shown_below_its_sounds_and_says_what_it_is(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    report = small_report(tmp_path / "sounds")
    first, *others = report.clips
    Image.new("RGB", (300, 40), "red").save(tmp_path / "found.png")
    first = dataclasses.replace(first, picture=tmp_path / "found.png", picture_text='labels & "more"')
    page = opened(write_page(dataclasses.replace(report, clips=[first, *others]), tmp_path / "page"))
    picture = page.get_by_alt_text('labels & "more"')
    assert picture.evaluate("node => node.decode().then(() => node.naturalWidth)") == 300
    lanes, place = card(page).locator(".lanes").bounding_box(), picture.bounding_box()
    assert place["y"] >= lanes["y"] + lanes["height"]
    assert page.locator(".found").count() == 1


# ---- keys and tables


def test_keyboard_shortcuts_work(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Space")
    wait_for_position(page, 0.05)
    page.keyboard.press("2")
    assert chosen(card(page)) == [1]
    page.keyboard.press("9")
    assert chosen(card(page)) == [1]
    page.keyboard.press("Space")
    stopped = position(page)
    page.keyboard.press("ArrowRight")
    assert position(page) == pytest.approx(min(stopped + 0.5, 1.7))
    page.keyboard.press("Shift+ArrowLeft")
    assert position(page) == pytest.approx(min(stopped + 0.5, 1.7) - 0.05)
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert position(page) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("[")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("]")
    assert page.evaluate("Deck.heard.region") == pytest.approx([0.5, 1.0])
    page.keyboard.press("r")
    assert page.evaluate("[Deck.heard.region, Deck.heard.repeat]") == [None, False]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "active" in card(page, 2).get_attribute("class")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.wait_for_selector(".clip.playing")
    assert "playing" in card(page, 1).get_attribute("class")
    page.keyboard.press("ArrowDown")  # plays on in the next clip
    page.wait_for_selector(".clip:nth-child(3).playing")
    assert page.locator(".clip.playing").count() == 1
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def column(table: Any, index: int) -> list[str]:
    return [row.locator("th, td").nth(index).inner_text().split("\n")[0] for row in table.locator("tbody tr").all()]


def test_tables_sort_the_best_first(opened: Open) -> None:
    page = opened()
    summary = page.locator(".summary table")
    assert column(summary, 0) == list(SYSTEMS)
    stoi = summary.get_by_role("columnheader").nth(1)
    stoi.get_by_role("button").click()
    assert (column(summary, 1), stoi.get_attribute("aria-sort")) == (["0.850", "0.825"], "descending")
    assert summary.locator("tbody tr").nth(0).locator(".best").count() == 2
    stoi.get_by_role("button").click()
    assert (column(summary, 1), stoi.get_attribute("aria-sort")) == (["0.825", "0.850"], "ascending")
    table = card(page, 1).locator("table")
    heads = table.get_by_role("columnheader")
    heads.nth(3).get_by_role("button").click()  # log-mel: lower is better
    assert (column(table, 3), heads.nth(3).get_attribute("aria-sort")) == (["0.100", "0.400"], "ascending")
    for _ in range(2):
        heads.nth(2).get_by_role("button").click()
        assert column(table, 2) == ["3.50", "\N{EN DASH}"]  # a missing score is last in both directions
    assert heads.nth(3).get_attribute("aria-sort") is None
    assert "higher is better\nITU-T P.862.2" in heads.nth(2).get_by_role("button").get_attribute("title")


def test_the_recordings_own_scores_have_a_row_and_are_never_the_best(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    report = small_report(tmp_path / "sounds")
    own = {REFERENCE: mean_score(0.99, 0.98, 1.0, 3)}
    own[SYSTEMS[0]] = {
        **mean_score(0.85, 0.8, 0.9, 3),
        "difference": -0.14,
        "difference_low": -0.2,
        "difference_high": 0,
    }
    own[SYSTEMS[1]] = mean_score(0.8, 0.7, 0.9, 3)
    summary = {system: {**report.summary.get(system, {}), "stoi": numbers} for system, numbers in own.items()}
    clips = [dataclasses.replace(clip, scores={**clip.scores, REFERENCE: {"stoi": 0.99}}) for clip in report.clips]
    page = opened(write_page(dataclasses.replace(report, summary=summary, clips=clips), tmp_path / "page"))
    table = page.locator(".summary table")
    assert column(table, 0) == [REFERENCE, *SYSTEMS]
    assert column(table, 1) == ["0.990", "0.850", "0.800"]
    assert column(table, 2)[0] == "\N{EN DASH}"
    rows = table.locator("tbody tr")
    assert rows.nth(1).locator("td").first.locator(".detail").all_inner_texts() == [
        "0.800 … 0.900",
        "Δ \N{MINUS SIGN}0.140 (\N{MINUS SIGN}0.200 … 0.000)",
    ]
    assert rows.nth(2).locator("td").first.locator(".detail").count() == 1
    assert page.get_by_text(f"Δ is the difference to {REFERENCE}").is_visible()
    scores = card(page).locator("table")
    assert column(scores, 1) == ["0.990", "0.900", "0.700"]
    for found in (rows, scores.locator("tbody tr")):
        assert [found.nth(index).locator("td").first.locator(".value").count() for index in range(3)] == [1, 1, 1]
        assert [found.nth(index).locator("td.best").count() > 0 for index in range(3)] == [False, True, False]


def test_clips_can_be_sorted_by_score(opened: Open) -> None:
    page = opened()
    names = page.locator(".clip h3")
    assert names.all_inner_texts() == list(CLIPS)
    page.get_by_label("Sort by").select_option("worst STOI")
    assert names.all_inner_texts() == ["two", "three", CLIPS[0]]
    page.locator(".by-system select").select_option(SYSTEMS[1])
    assert names.all_inner_texts() == [CLIPS[0], "two", "three"]
    page.get_by_label("Sort by").select_option("name")
    assert names.all_inner_texts() == [CLIPS[0], "three", "two"]


# ---- looks


def test_colours_are_light_or_dark(opened: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    colours = light.evaluate(ground), dark.evaluate(ground)
    assert colours == ("rgb(245, 246, 248)", "rgb(17, 20, 24)")
    light.get_by_role("button", name="Dark colours").click()
    dark.get_by_role("button", name="Light colours").click()
    assert (dark.evaluate(ground), light.evaluate(ground)) == colours


@pytest.mark.parametrize("view", ["", "#blind"])
def test_a_phone_needs_no_sideways_scrolling(opened: Open, view: str) -> None:
    page = opened(at=view, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    if view:
        page.get_by_role("button", name="Start rating").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("view", ["", "#blind"])
def test_all_controls_have_accessible_names(opened: Open, view: str) -> None:
    nameless = """[...document.querySelectorAll("button, input, select, a[href], img, dialog, [role=group]")]
      .filter((node) =>
      !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.alt ||
        node.textContent.trim() ||
        [...(node.labels ?? [])].some((label) => label.textContent.trim()))).map((node) => node.outerHTML)"""
    page = opened(at=view)
    assert page.locator("button, input, select, a").count() > 10
    assert page.evaluate(nameless) == []
