"""torch.compile in training, and what a missing compiler leads to."""

from pathlib import Path
from types import ModuleType

import pytest
from support.messages import Messages
from support.runs import train
from torch import nn

from wavegen.blocks import DilatedStack


def test_a_missing_compiler_ends_the_training_in_one_line(
    tmp_path: Path,
    recipe: Path,
    messages: Messages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """torch finds out when the first step runs, and raises one of many errors of its own."""
    inductor = ModuleType("torch._inductor.exc")
    exec("class InvalidCxxCompiler(RuntimeError): pass", vars(inductor))
    inductor.InvalidCxxCompiler.__module__ = inductor.__name__

    def compile_without_compiler(stack: nn.Module) -> None:
        def fail(*arguments: object) -> None:
            raise inductor.InvalidCxxCompiler("No working C++ compiler found in\n torch._inductor.config.cpp.cxx")

        stack.forward = fail  # type: ignore[method-assign]

    monkeypatch.setattr(DilatedStack, "compile", compile_without_compiler)
    assert train(recipe, tmp_path / "run", "training.compile=true") == 2
    messages.check(capsys.readouterr().err)
    assert train(recipe, tmp_path / "other", "training.steps=2") == 0
