"""``wavegen-extract`` as a user meets it."""

from pathlib import Path

import pytest
from support.commands import Refused, tree
from support.corpus import write_noise
from support.messages import Messages

from wavegen.commands import extract
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import load_mel, profile

pytestmark = pytest.mark.usefixtures("folder")


def test_one_recording_becomes_a_mel_and_a_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    write_noise("in/a.wav")
    assert extract.main(["in/a.wav", "out"]) == 0
    assert capsys.readouterr() == ("1 mels of 0.3 s extracted: out/manifest.tsv\n", "")
    mel, spec = load_mel("out/mels/a.npz")
    assert spec == profile("bigvgan-24k")
    assert mel.shape == (100, 28)
    (clip,) = read_manifest(Path("out/manifest.tsv"), Clip)
    assert (clip.name, clip.split, clip.samples, clip.frames) == ("a", "train", 7200, 28)


def test_a_folder_of_recordings_to_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    write_noise("in/a.wav", "in/sub/b.flac")
    arguments = ["in", "out", "--profile", "vocos-24k"]
    assert extract.main(arguments) == 0
    assert load_mel("out/mels/sub/b.npz")[1] == profile("vocos-24k")
    assert [clip.name for clip in read_manifest(Path("out/manifest.tsv"), Clip)] == ["a", "sub/b"]
    assert capsys.readouterr().out == "2 mels of 0.6 s extracted: out/manifest.tsv\n"
    before = tree()
    assert extract.main(arguments) == 0
    assert capsys.readouterr().out == "2 mels of 0.6 s were already complete: out/manifest.tsv\n"
    assert tree() == before


def test_a_share_is_held_out() -> None:
    write_noise(*(f"in/{index}.wav" for index in range(5)), seconds=0.1)
    assert extract.main(["in", "out", "--held-out", "0.4"]) == 0
    splits = [clip.split for clip in read_manifest(Path("out/manifest.tsv"), Clip)]
    assert sorted(splits) == ["train"] * 3 + ["valid"] * 2


def test_jobs_change_nothing() -> None:
    write_noise(*(f"in/{index}.wav" for index in range(4)), seconds=0.1)
    for jobs in ("1", "3"):
        assert extract.main(["in", f"out{jobs}", "--jobs", jobs]) == 0
    written = tree()
    for path in ("manifest.tsv", *(f"mels/{index}.npz" for index in range(4))):
        assert written[f"out1/{path}"] == written[f"out3/{path}"]


def test_a_bad_recording_among_good_ones_is_reported_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    write_noise("in/a.wav", "in/c.wav")
    Path("in/b.wav").write_text("a text")
    for how in ("extracted", "were already complete"):  # the second time too
        assert extract.main(["in", "out"]) == 1
        assert capsys.readouterr() == (
            f"2 mels of 0.6 s {how}: out/manifest.tsv\n",
            "wavegen-extract: 1 left out:\n"
            "  in/b.wav: cannot be decoded (Format not recognised.); copy or download it again, or leave it out\n",
        )
    assert [clip.name for clip in read_manifest(Path("out/manifest.tsv"), Clip)] == ["a", "c"]


@pytest.mark.parametrize("arguments", [["none", "out"], ["empty", "out"], ["in", "out", "--profile", "bigvgan-24"]])
def test_a_bad_extraction(arguments: list[str], refused: Refused) -> None:
    write_noise("in/a.wav")
    Path("empty").mkdir()
    refused(extract.main, *arguments)


@pytest.mark.parametrize("option", [["--jobs", "0"], ["--held-out", "1.0"], ["--held-out", "-0.1"]])
def test_a_bad_option_of_extraction(option: list[str], refused: Refused) -> None:
    write_noise("in/a.wav")
    refused(extract.main, "in", "out", *option)


def test_recordings_that_were_passed_over_are_reported_and_exit_with_1(
    capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    write_noise("in/a.wav")
    Path("in/b.m4a").touch()
    Path("in/c.wav").symlink_to("nowhere.wav")
    assert extract.main(["in", "out"]) == 1
    captured = capsys.readouterr()
    messages.check(captured.out)
    messages.check(captured.err)


@pytest.mark.parametrize("name", ["list.tsv", "LIST.TSV", "list.txt", "list.csv"])
def test_a_list_may_have_any_of_the_suffixes_of_text(name: str) -> None:
    write_noise("in/a.wav", "in/b.wav")
    Path(name).write_text('Path\tText\nin/a.wav\t"a\nin/b.wav\tb\n')
    assert extract.main([name, "out"]) == 0
    assert [clip.name for clip in read_manifest(Path("out/manifest.tsv"), Clip)] == ["in/a", "in/b"]


def test_results_inside_the_corpus_are_not_extracted_the_next_time(refused: Refused) -> None:
    write_noise("in/a.wav", "in/b.ogg")
    for out in ("in/out", "in/out", "in/other"):
        assert extract.main(["in", out]) in (0, 1)
        assert [clip.name for clip in read_manifest(Path(out, "manifest.tsv"), Clip)] == ["a", "b"]
    refused(extract.main, "in", "in")
