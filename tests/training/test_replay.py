"""Steps replayed from a CUDA graph. That a replay gives the same bits is tested with resuming on a GPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.messages import Messages
from support.runs import SMALL
from support.vocoders import tiny_vocoder
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wavegen.corpora.pitch_labels import LABELS_PER_FRAME
from wavegen.errors import TrainingError
from wavegen.mel import profile
from wavegen.training import objectives
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.objectives import build_objective
from wavegen.training.replay import STEPS_BEFORE_RECORDING, Replayed
from wavegen.training.state import TrainingState
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")
WITH_STATISTICS = MEL.model_copy(update={"mean": (0.0,) * MEL.n_mels, "std": (1.0,) * MEL.n_mels})


def batch(value: float = 0.1, *, frames: int = 20, speakers: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio = value * torch.randn(2, frames * MEL.hop_length, generator=generator)
    mel = torch.randn(2, MEL.n_mels, frames, generator=generator)
    f0 = 100 + 100 * torch.rand(2, frames * LABELS_PER_FRAME, generator=generator)
    return Batch(audio, mel, torch.tensor([frames, frames]), torch.tensor([0, 4]), speakers, f0)


class Graph(TorchDispatchMode):
    """A stand-in for a CUDA graph: records operations and, at a replay, writes their results to the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, output))
        return output

    def replay(self) -> None:
        for function, args, kwargs, output in self.operations:
            for result, recorded in zip(tree_leaves(function(*args, **kwargs)), tree_leaves(output), strict=True):
                recorded.copy_(result)


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def record(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        with graph:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)


@pytest.mark.usefixtures("without_cuda")
def test_steps_are_replayed_from_the_fourth_of_a_kind_on() -> None:
    computed: list[int] = []

    def gradients(given: Batch, *, step: int) -> dict[str, Tensor]:
        computed.append(step)
        return {"loss": given.audio.sum(), "norm": given.mel.sum()}

    tested = Replayed(gradients, kind=lambda step: step >= 6)
    batches = [batch(0.1 * step) for step in range(12)]
    results = [tested(given, step=step) for step, given in enumerate(batches)]
    assert computed == [0, 1, 2, 3, 6, 7, 8, 9]
    for given, values in zip(batches, results, strict=True):  # later replays have not overwritten them
        assert torch.equal(values["loss"], given.audio.sum())
        assert torch.equal(values["norm"], given.mel.sum())


@pytest.mark.usefixtures("without_cuda")
def test_a_step_that_cannot_be_recorded_is_refused_in_one_line(messages: Messages) -> None:
    def gradients(given: Batch, *, step: int) -> dict[str, Tensor]:
        if step == STEPS_BEFORE_RECORDING:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")
        return {}

    tested = Replayed(gradients, kind=lambda step: None)
    for step in range(STEPS_BEFORE_RECORDING):
        tested(batch(), step=step)
    with messages.refused(TrainingError):
        tested(batch(), step=STEPS_BEFORE_RECORDING)


class HostForbidden(TorchDispatchMode):
    """Fails if a kernel's result is read, or numbers come from the host: a CUDA graph can record neither."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique2"), name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_a_step_does_not_wait_for_the_host(
    name: str, adversarial: bool, statistics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "is_whole", lambda mask: False)  # as on a GPU
    if adversarial and not VOCODERS[name].accepts_discriminators:
        pytest.skip("no adversarial training")
    spec = WITH_STATISTICS if statistics else MEL
    with_speakers = {"speakers": ("a", "b"), "speaker_channels": 4} if VOCODERS[name].has_speakers else {}
    vocoder = tiny_vocoder(name, spec=spec, **with_speakers)
    config = TrainingConfig(steps=8, adversarial=SMALL if adversarial else None)
    state = TrainingState(vocoder, config)
    objective = build_objective(vocoder, config, state.discriminators)
    given = batch(speakers=torch.tensor([0, 1]) if with_speakers else None)

    def step() -> None:
        parts = objective(given, step=5)
        objective.add_gradients(parts)
        state.clip_gradients()

    step()  # creates what later steps reuse
    with HostForbidden():
        step()
    with HostForbidden(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        given.audio.sum().item()
