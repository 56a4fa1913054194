"""The listening page as a file: what is in it and beside it, its loudness gains and its pictures."""

import base64
import hashlib
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from support.messages import Messages
from support.report import REFERENCE, SYSTEMS, small_report, tone

from wavegen.audio import write_audio
from wavegen.errors import AudioError, OutputError
from wavegen.listening import thumbnails
from wavegen.listening.loudness import integrated_loudness, matching_gains_db
from wavegen.listening.report import Report, ReportClip, write_page
from wavegen.listening.sounds import clip_media

RATE = 16000


def json_of(page: str, attribute: str) -> list[Any]:
    blocks = re.findall(rf'<script type="application/json" {attribute}>(.*?)</script>', page, flags=re.DOTALL)
    return [json.loads(block) for block in blocks]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return small_report(tmp_path_factory.mktemp("sounds"))


def test_the_page_holds_everything(report: Report, tmp_path: Path) -> None:
    path = write_page(report, tmp_path / "out")
    assert path == tmp_path / "out" / "index.html"
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    page = path.read_text(encoding="utf-8")
    (data,) = json_of(page, 'id="data"')
    assert data["systems"] == [REFERENCE, *SYSTEMS]
    assert [clip["name"] for clip in data["clips"]] == [clip.name for clip in report.clips]
    assert data["soundFiles"] is None
    assert data["summary"][0] == {}
    assert data["clips"][1]["scores"][2]["pesq"] is None
    sounds = json_of(page, 'class="sounds"')
    assert len(sounds) == len(report.clips)
    first = [soundfile.read(io.BytesIO(base64.b64decode(text))) for text in sounds[0]]
    assert [rate for _, rate in first] == [24000, 16000, 24000]  # each at its own rate
    original, _ = soundfile.read(report.clips[0].audio[REFERENCE])
    assert np.array_equal(first[0][0], original)


def test_the_same_report_gives_the_same_page(report: Report, tmp_path: Path) -> None:
    first, second = (write_page(report, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_names_cannot_become_markup(report: Report, tmp_path: Path) -> None:
    page = write_page(report, tmp_path).read_text(encoding="utf-8")
    assert "<img" not in page.replace("<img>", "")
    assert page.count("</script>") == 1 + 1 + len(report.clips)  # the data, the script, the sounds
    assert "<title>Two &lt;b&gt;voices" in page


def test_only_the_pages_own_script_may_run(report: Report, tmp_path: Path) -> None:
    page = write_page(report, tmp_path).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script)


def test_large_sounds_are_written_beside_the_page(report: Report, tmp_path: Path) -> None:
    inside = write_page(report, tmp_path)
    size = inside.stat().st_size
    page = write_page(report, tmp_path, largest_inside_bytes=50_000).read_text(encoding="utf-8")
    names = ["clip-0001.js", "clip-0002.js", "clip-0003.js"]
    assert sorted(file.name for file in (tmp_path / "audio").iterdir()) == names
    assert json_of(page, 'id="data"')[0]["soundFiles"] == [f"audio/{name}" for name in names]
    assert not json_of(page, 'class="sounds"')
    beside = (tmp_path / "audio" / "clip-0002.js").read_text()
    assert beside.startswith('receiveSounds(1, ["')
    assert len(page) < size
    fewer = Report(**{**vars(report), "clips": report.clips[:1]})
    write_page(fewer, tmp_path, largest_inside_bytes=0)
    assert [file.name for file in (tmp_path / "audio").iterdir()] == names[:1]  # none of the earlier page
    write_page(report, tmp_path)
    assert list((tmp_path / "audio").iterdir()) == []


def test_nan_and_infinite_scores_become_null(report: Report, tmp_path: Path) -> None:
    scores = {SYSTEMS[0]: {"stoi": math.nan, "pesq": math.inf, "log_mel": 1 / 3}}
    clip = ReportClip("odd", report.clips[0].audio, scores)
    page = write_page(Report(**{**vars(report), "clips": [clip]}), tmp_path).read_text(encoding="utf-8")
    (data,) = json_of(page, 'id="data"')
    assert data["clips"][0]["scores"][1] == {"stoi": None, "pesq": None, "log_mel": 0.333333}


def test_broken_sounds_and_folders_are_refused(report: Report, tmp_path: Path, messages: Messages) -> None:
    (tmp_path / "none.wav").write_text("no sound")
    clip = ReportClip("odd", {REFERENCE: tmp_path / "none.wav"}, {})
    with messages.refused(AudioError):
        write_page(Report(**{**vars(report), "clips": [clip]}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with messages.refused(OutputError):
        write_page(report, tmp_path / "none.wav")


def test_importing_the_page_loads_no_heavy_libraries() -> None:
    code = "import sys, wavegen.listening.report, wavegen.listening.ratings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "wavegen" in loaded
    assert not loaded & {"matplotlib", "PIL", "torchaudio", "scipy", "pyloudnorm"}


# ---- loudness


def test_loudness_is_defined_from_one_block_and_above_the_gate() -> None:
    sine = tone(1000, 0.4)  # amplitude 0.25: -12.04 dB re full scale, -3.01 dB as root mean square, near 0 dB weighting
    assert integrated_loudness(sine, RATE) == pytest.approx(-15.05, abs=0.1)
    assert integrated_loudness(sine[:-1], RATE) is None
    assert integrated_loudness(np.zeros(RATE), RATE) is None


def test_gains_match_loudness() -> None:
    sound = tone(440, 1.0)
    gains = matching_gains_db({"ref": sound, "half": sound / 2, "tenth": sound / 10}, RATE, "ref")
    assert gains == pytest.approx({"ref": 0.0, "half": 6.02, "tenth": 20.0}, abs=0.01)


def test_loudness_is_weighted_by_frequency() -> None:
    low, mid = tone(60, 1.0), tone(1000, 1.0)  # BS.1770: at the same level, 60 Hz is about 3 dB less loud than 1 kHz
    gains = matching_gains_db({"ref": mid, "low": low}, RATE, "ref")
    assert 1 < gains["low"] < 6


def test_gains_neither_clip_nor_amplify_silence() -> None:
    loud = 0.9 * np.sign(tone(100, 1.0))
    quiet = np.zeros(RATE)
    quiet[::100] = 0.5  # quiet overall, with peaks
    gains = matching_gains_db({"ref": loud, "peaks": quiet}, RATE, "ref")
    assert 0.5 * 10 ** (gains["peaks"] / 20) == pytest.approx(1.0, abs=0.01)
    assert gains["ref"] < -3
    assert matching_gains_db({"ref": tone(440, 1.0), "none": np.zeros(RATE)}, RATE, "ref")["none"] == 20
    short = tone(440, 0.1)
    assert matching_gains_db({"ref": short, "half": short / 2}, RATE, "ref")["half"] == pytest.approx(6.02, abs=0.01)


# ---- pictures


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_pictures_show_levels_and_differences() -> None:
    spec = thumbnails.picture_spec(RATE)
    levels = thumbnails.levels_db(tone(1000, 1.0), spec)
    assert levels.shape == (80, thumbnails.levels_db(tone(1000, 1.0), spec).shape[1])
    picture = pixels(thumbnails.level_picture(levels, float(levels.max())))
    assert picture.shape == (*levels.shape, 4)
    bright = picture[..., :3].sum(axis=-1)
    row = int(bright.sum(axis=1).argmax())  # from the top
    heights = dict(thumbnails.ticks(spec))
    assert 1 - (row + 0.5) / 80 == pytest.approx(heights[1000], abs=0.015)
    louder = pixels(thumbnails.difference_picture(levels + 10, levels))
    quieter = pixels(thumbnails.difference_picture(levels - 10, levels))
    equal = pixels(thumbnails.difference_picture(levels, levels))
    assert (equal[..., 3] == 0).all()
    assert (louder[..., :3] == thumbnails.LOUDER).all()
    assert (quieter[..., :3] == thumbnails.QUIETER).all()
    assert 0 < louder[0, 0, 3] < 255
    assert (pixels(thumbnails.difference_picture(levels + 99, levels))[..., 3] == 255).all()


def test_pictures_of_one_clip_share_a_scale(tmp_path: Path) -> None:
    write_audio(tmp_path / "ref.wav", tone(440, 1.0), RATE)
    write_audio(tmp_path / "quiet.wav", tone(440, 1.0) / 100, RATE)
    media = clip_media({"ref": tmp_path / "ref.wav", "quiet": tmp_path / "quiet.wav"}, "ref")
    loud, quiet = (pixels(base64.b64decode(media.sounds[name]["picture"])) for name in ("ref", "quiet"))
    assert loud[..., :3].max() > 200
    # 40 of 80 dB below the loudest: halfway on the scale
    assert quiet.reshape(-1, 4)[quiet[..., :3].sum(axis=-1).argmax()][:3] == pytest.approx(
        thumbnails.level_colours()[16], abs=12
    )


def test_clips_of_any_duration_have_pictures() -> None:
    for rate in (8000, 22050, 48000):
        spec = thumbnails.picture_spec(rate)
        assert 0.032 <= spec.n_fft / rate <= 0.064
        long, short = (thumbnails.levels_db(np.ones(n, dtype=np.float32), spec) for n in (rate * 20, 1))
        assert long.shape == (80, 480)
        assert short.shape[0] == 80


def test_an_outline_keeps_peaks() -> None:
    samples = np.zeros(10_000)
    samples[5_000], samples[7_777] = 1.0, -0.5
    lows, highs = thumbnails.outline(samples, 240)
    assert highs[120] == 127
    assert lows[int(7_777 / 10_000 * 240)] == -64
    assert (np.count_nonzero(lows), np.count_nonzero(highs)) == (1, 1)
    assert thumbnails.outline(samples[:3], 240).shape == (2, 240)
