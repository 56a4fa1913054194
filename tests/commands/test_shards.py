"""``--shard`` and ``--merge``: what several processes make of their parts is what one makes of the whole."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.commands import Refused, command_main
from support.corpus import write_noise
from support.messages import Messages
from support.sharding import DIVISIBLE, Divisible, files

import wavegen.corpora.extraction
import wavegen.synthesis.many
from wavegen.commands import extract
from wavegen.commands.extract import main as extract_main
from wavegen.shards import FOLDER, Shard

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(params=DIVISIBLE)
def command(request: pytest.FixtureRequest) -> Divisible:
    found = DIVISIBLE[request.param]
    found.prepare()
    return found


def in_shards(command: Divisible, out: str, count: int) -> None:
    """All shards, the last one first: the order must not matter."""
    for index in range(count, 0, -1):
        assert command.run(out, "--shard", f"{index}/{count}") in (0, 1)


def refused_merge(command: Divisible, refused: Refused, *options: str) -> None:
    words = ["out" if word == "OUT" else word for word in command.arguments]
    refused(command_main(command.name), *words, "--merge", *options)


@pytest.mark.parametrize("count", [2, 7])  # with 7, some shards have nothing to do
def test_merged_shards_equal_one_run_byte_for_byte(command: Divisible, count: int) -> None:
    assert command.run("whole") == command.code
    in_shards(command, "out", count)
    assert command.run("out", "--merge") == command.code
    assert files("out") == files("whole")
    assert len(files("out")) > 3


def test_a_shard_that_is_missing_is_named(command: Divisible, refused: Refused) -> None:
    command.run("out", "--shard", "1/3")
    command.run("out", "--shard", "3/3")
    refused_merge(command, refused)


def test_without_shards_there_is_nothing_to_merge(command: Divisible, refused: Refused) -> None:
    refused_merge(command, refused)


def test_parts_of_two_divisions_overlap(command: Divisible, refused: Refused) -> None:
    in_shards(command, "out", 2)
    command.run("out", "--shard", "1/3")
    refused_merge(command, refused)


def test_shards_of_other_options_are_refused(command: Divisible, refused: Refused) -> None:
    command.run("out", "--shard", "1/2")
    command.run("out", "--shard", "2/2", *command.other)
    refused_merge(command, refused)


def test_an_input_that_came_between_two_shards_makes_them_overlap(refused: Refused) -> None:
    write_noise("in/b.wav", "in/c.wav", seconds=0.1)
    extract_main(["in", "out", "--shard", "1/2"])
    write_noise("in/a.wav", seconds=0.1)
    extract_main(["in", "out", "--shard", "2/2"])  # of a, b and c this is b again
    refused(extract_main, "in", "out", "--merge")


def test_an_input_that_came_after_the_shards_is_a_gap(refused: Refused) -> None:
    command = DIVISIBLE["extract"]
    command.prepare()
    in_shards(command, "out", 2)
    write_noise("in/new.wav", seconds=0.1)
    refused_merge(command, refused)
    Path("in/new.wav").unlink()
    Path("in/a.wav").unlink()
    refused_merge(command, refused)


def test_an_input_that_changed_after_its_shard_is_named(command: Divisible, refused: Refused) -> None:
    in_shards(command, "out", 2)
    changed = next(path for path in sorted(Path("in").rglob("c.*")))
    os.utime(changed, (1, 1))
    refused_merge(command, refused)


def test_a_merge_that_was_interrupted_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    command = DIVISIBLE["extract"]
    command.prepare()
    command.run("whole")
    in_shards(command, "out", 2)
    replace, left = os.replace, iter(range(3))

    def replace_or_stop(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_or_stop)
        command.run("out", "--merge")
    assert Path("out", FOLDER).exists()
    command.run("out", "--merge")
    assert files("out") == files("whole")


def test_a_part_that_was_finished_is_not_made_again(command: Divisible) -> None:
    command.run("out", "--shard", "1/2")
    folder = Shard(1, 2).folder(Path("out"))
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".npz", ".flac", ".wav")}
    assert times
    command.run("out", "--shard", "1/2")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_corpus_without_a_usable_recording_is_refused_by_the_merge(refused: Refused) -> None:
    for name in ("a", "b"):
        write_noise(f"in/{name}.wav")
        Path(f"in/{name}.wav").write_text("a text")
    for index in (1, 2):
        assert extract_main(["in", "out", "--shard", f"{index}/2"]) == 1
    refused(extract_main, "in", "out", "--merge")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_bad_shard(shard: str, refused: Refused) -> None:
    refused(extract_main, "in", "out", "--shard", shard)


def test_one_mel_cannot_be_divided(refused: Refused) -> None:
    DIVISIBLE["synth"].prepare()
    refused(command_main("synth"), "in/a.npz", "out.wav", "--shard", "1/2")


def by(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this package resample, whichever is installed."""
    monkeypatch.setattr(wavegen.corpora.extraction, "installed_resampler", lambda: package)


def test_shards_that_resampled_by_different_packages_are_refused(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise("in/a.wav", "in/b.wav", seconds=0.1, rate=16000)
    for shard, package in (("1/2", "soxr"), ("2/2", "torchaudio")):
        by(package, monkeypatch)
        extract_main(["in", "out", "--shard", shard])
    refused(extract_main, "in", "out", "--merge")


def test_a_resampler_that_changed_between_two_extractions_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    write_noise("in/a.wav", seconds=0.1, rate=16000)
    by("soxr", monkeypatch)
    extract.main(["in", "out"])
    by("torchaudio", monkeypatch)
    extract.main(["in", "out"])
    assert "package" not in capsys.readouterr().out  # nothing was made again
    write_noise("in/b.wav", seconds=0.1, rate=16000)
    for _ in range(2):  # also when everything is there
        extract.main(["in", "out"])
        messages.check(capsys.readouterr().out)


def test_batches_are_those_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mels that are padded together may differ in the last bit from mels that are not, so batches stay together."""
    command = DIVISIBLE["synth"]
    command.prepare()
    together: list[set[int]] = []
    original: Callable = wavegen.synthesis.many.stream_batch

    def spy(vocoder: object, mels: list, *rest: object, **options: object) -> object:
        together.append({mel.frames for mel in mels})
        return original(vocoder, mels, *rest, **options)

    monkeypatch.setattr(wavegen.synthesis.many, "stream_batch", spy)
    options = ("--batch", "2", "--float")
    command.run("whole", *options)
    whole = sorted(map(sorted, together))
    together.clear()
    for index in (1, 2):
        command.run("out", *options, "--shard", f"{index}/2")
    assert sorted(map(sorted, together)) == whole
    assert any(len(group) == 2 for group in whole)
    command.run("out", *options, "--merge")
    assert files("out").keys() == files("whole").keys()
    for name in files("whole"):  # where arrays lie in memory may change the last bit of a float
        merged, expected = (soundfile.read(f"{folder}/{name}")[0] for folder in ("out", "whole"))
        np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_shard_takes_every_nth_item() -> None:
    items = list(range(10))
    shards = [Shard(index, 3).of(items) for index in (1, 2, 3)]
    assert shards == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert sorted(np.concatenate(shards)) == items


def test_mels_of_shards_that_are_not_merged_are_not_synthesised() -> None:
    write_noise("in/a.wav", "in/b.wav")
    extract_main(["in", "features"])
    extract_main(["in", "features", "--profile", "vocos-24k", "--shard", "1/2"])
    assert command_main("synth")(["features", "out", "--model", "default"]) == 0
    assert sorted(files("out")) == ["mels/a.wav", "mels/b.wav"]
