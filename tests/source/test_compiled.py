"""The compiled kernels against torch; filters and Levinson's recursion are tested where they are used."""

from pathlib import Path

import pytest
import torch

from wavegen.noise import noise_streams, uniform_noise
from wavegen.source import _kernels, compiled
from wavegen.source.excitation import initial_pulse_state, pulse_train


def test_noise_is_the_same_bit_for_bit() -> None:
    seeds = torch.tensor([0, -1, 7, 2**62])
    for start in (-64, 0, 2**40):
        found = compiled.uniform_noise(noise_streams(seeds, 2), start, 1001)
        assert torch.equal(found, uniform_noise(seeds, start, 1001, 2))


def test_pulses_are_the_same_up_to_rounding_and_their_phase_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    f0 = 40 + 1600 * torch.rand(2, 24000, generator=generator, dtype=torch.float64)
    for rate in (8000, 24000, 48000):
        expected, after = pulse_train(f0, rate, initial_pulse_state(2))
        with torch.no_grad():
            found, compiled_after = pulse_train(f0, rate, initial_pulse_state(2))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        assert torch.equal(compiled_after.phase, after.phase)


def test_kernels_that_have_run_are_found_on_disk() -> None:
    with torch.no_grad():
        compiled.levinson(torch.eye(3, dtype=torch.float64)[None])
    assert compiled.may_be_on_disk(_kernels.__file__)
    assert compiled.is_on_disk(compiled._compiled(_kernels.levinson, cache=True))


def never_called(x: float) -> float:
    return x


def test_what_never_ran_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compiled.is_on_disk(compiled._compiled(never_called, cache=True))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not compiled.may_be_on_disk(_kernels.__file__)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert not compiled.may_be_on_disk(str(tmp_path / "kernels.py"))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # numba then uses a folder of the user
    assert compiled.may_be_on_disk(str(tmp_path / "kernels.py"))


@pytest.mark.parametrize("ready", [True, False])
def test_without_compiling_only_ready_code_runs(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_is_ready", lambda: ready)
    x = torch.zeros(1)
    with torch.no_grad():
        with compiled.without_compiling(), compiled.without_compiling():
            assert compiled.compiled_code_runs(x) == ready
        assert compiled.compiled_code_runs(x)
    assert not compiled.compiled_code_runs(x)  # gradients
