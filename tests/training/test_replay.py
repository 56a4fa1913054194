"""Steps replayed from a CUDA graph. That replays give the same bits is tested on a GPU, with resuming."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.runs import SMALL
from support.vocoders import new_vocoder
from torch.utils._python_dispatch import TorchDispatchMode

from wavegen.errors import TrainingError
from wavegen.mel import profile
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.objectives import build_objective
from wavegen.training.replay import STEPS_BEFORE_RECORDING, Replayed
from wavegen.training.state import TrainingState
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")
WITH_STATISTICS = MEL.model_copy(update={"mean": (0.0,) * MEL.n_mels, "std": (1.0,) * MEL.n_mels})
SIZES: dict[str, dict[str, Any]] = {
    "spectral": {"channels": 8, "layers": 1, "speakers": ("a", "b"), "speaker_channels": 4},
    "parallel": {"residual_channels": 4, "gate_channels": 8, "skip_channels": 4, "cycles": 1, "depth": 3},
    "wavenet": {"residual_channels": 4, "skip_channels": 4, "cycles": 1, "depth": 3},
}


def batch(value: float = 0.1, *, frames: int = 20, speakers: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio = value * torch.randn(2, frames * MEL.hop_length, generator=generator)
    mel = torch.randn(2, MEL.n_mels, frames, generator=generator)
    return Batch(audio, mel, torch.tensor([frames, frames]), torch.tensor([0, 4]), speakers)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """A stand-in for CUDA: what is replayed is computed, from what was recorded and into where that left it."""
    those_recorded: list[Replayed] = []

    class Graph:
        def replay(self) -> None:
            step = those_recorded[-1]
            step._values.copy_(torch.stack(list(step.gradients(step._batch, step=-1).values())))

    @contextlib.contextmanager
    def record(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    return those_recorded


def test_steps_are_replayed_from_the_fourth_of_a_kind_on(recorded: list[Replayed]) -> None:
    steps: list[int] = []

    def gradients(given: Batch, *, step: int) -> dict[str, torch.Tensor]:
        steps.append(step)
        return {"loss": given.audio.sum(), "norm": given.mel.sum()}

    tested = Replayed(gradients, kind=lambda step: step >= 6)
    recorded.append(tested)
    given = [batch(0.1 * step) for step in range(12)]
    results = [tested(given[step], step=step) for step in range(12)]
    replay = -1
    assert steps == [0, 1, 2, 3, replay, replay, replay, 6, 7, 8, 9, replay, replay, replay]
    for one, values in zip(given, results, strict=True):  # of its own batch, also after the replays that followed
        assert torch.equal(values["loss"], one.audio.sum())
        assert torch.equal(values["norm"], one.mel.sum())


def test_a_step_that_cannot_be_recorded_is_refused_in_one_line(recorded: list[Replayed]) -> None:
    def gradients(given: Batch, *, step: int) -> dict[str, torch.Tensor]:
        if step == STEPS_BEFORE_RECORDING:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")
        return {}

    tested = Replayed(gradients, kind=lambda step: None)
    for step in range(STEPS_BEFORE_RECORDING):
        tested(batch(), step=step)
    with pytest.raises(TrainingError) as caught:
        tested(batch(), step=STEPS_BEFORE_RECORDING)
    assert str(caught.value) == (
        "training.cuda_graphs: the step cannot be recorded as a CUDA graph: "
        "CUDA error: operation not permitted when stream is capturing; set it to false"
    )


class _NothingForTheHost(TorchDispatchMode):
    """Fails where a kernel's result is read, or numbers come from the host: a graph can hold neither."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique2"), name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize(
    ("name", "adversarial"),
    [(name, adversarial) for name in sorted(VOCODERS) for adversarial in (False, True)[: 1 + (name != "wavenet")]],
)
def test_a_step_asks_the_host_for_nothing(name: str, adversarial: bool, statistics: bool) -> None:
    vocoder = new_vocoder(name, WITH_STATISTICS if statistics else MEL, **SIZES[name])
    config = TrainingConfig(steps=8, adversarial=SMALL if adversarial else None)
    state = TrainingState(vocoder, config)
    objective = build_objective(vocoder, config, state.discriminators)
    given = batch(speakers=torch.tensor([0, 1]) if vocoder.speakers else None)

    def step() -> None:
        parts = objective(given, step=5)
        torch.autograd.backward([parts[key] for key in ("loss", "discriminator_loss") if key in parts])
        state.clip_gradients()

    step()  # what is made once is there now
    with _NothingForTheHost():
        step()
    with _NothingForTheHost(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        given.audio.sum().item()


def test_the_kind_of_a_step() -> None:
    """Discriminators begin at a step; drawn definitions differ at every step."""
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config := TrainingConfig(steps=1))
    assert build_objective(state.vocoder, config).kind(0) == build_objective(state.vocoder, config).kind(9)
    config = TrainingConfig(steps=9, adversarial=SMALL.model_copy(update={"start_step": 3}))
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    objective = build_objective(state.vocoder, config, state.discriminators)
    assert objective.kind(0) == objective.kind(2) != objective.kind(3) == objective.kind(8)
    family = new_vocoder("spectral", MEL, channels=4, layers=1, any_mel=True)
    drawn = build_objective(family.train(), config, state.discriminators)
    assert len({drawn.kind(step) for step in range(9)}) == 9
    assert len({build_objective(family.eval(), config, state.discriminators).kind(step) for step in range(3)}) == 1
