"""The scores of a voice by kind of mel."""

import runpy
from pathlib import Path

import pytest
from support.corpus import write_corpus
from support.messages import PROJECT, Messages

from wavegen.evaluation.metrics import available

SCRIPT = runpy.run_path(str(PROJECT / "recipes/voices/score.py"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus of three validation clips, of which one is too short to rate, and one that is trained on."""
    folder = write_corpus(tmp_path / "corpus", clips=4, seconds=1.2)
    rows = [f"a{index}.wav\t{'valid' if index else 'train'}" for index in range(4)]
    (folder / "MANIFEST.tsv").write_text("\n".join(["file\tsplit", *rows]) + "\n")
    return folder


def test_a_row_has_the_distance_to_the_recordings_with_an_interval(corpus: Path) -> None:
    if not {"distillmos", "pesq"} <= set(available()):
        pytest.skip("distillmos or pesq is not installed")
    clips = SCRIPT["validation_clips"](corpus, None)
    assert [path.name for path in clips] == ["a1.wav", "a2.wav", "a3.wav"]
    row = SCRIPT["Row"]("bigvgan-24k")
    recordings, distance, _ = SCRIPT["cells_of"](row, clips, [SCRIPT["source_filter_baseline"]])
    assert 1 < float(recordings) < 5
    mean, half = (float(part) for part in distance.split(" ± "))
    assert abs(mean) < 3
    assert half >= 0


def test_what_does_not_exist_is_one_line(
    corpus: Path, tmp_path: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SCRIPT["main"](["default", "--unseen", str(corpus), "--seen", str(tmp_path / "nothing")]) == 2
    messages.check(capsys.readouterr().err)
