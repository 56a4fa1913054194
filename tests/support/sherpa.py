"""The real sherpa-onnx as a listener: it renders a known mel with a vocoder's file."""

from pathlib import Path

import numpy as np


def write_acoustic_model(path: Path, mel: np.ndarray, sample_rate_hz: int) -> None:
    """A stand-in for a Matcha acoustic model, which emits ``mel`` ``[n_mels, frames]`` for any text."""
    from onnx import TensorProto, helper, numpy_helper, save

    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("x_length", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("noise_scale", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("length_scale", TensorProto.FLOAT, [1]),
    ]
    value = numpy_helper.from_array(mel[None].astype(np.float32))
    output = helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, *mel.shape])
    graph = helper.make_graph([helper.make_node("Constant", [], ["mel"], value=value)], "stand-in", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(
        model,
        {
            "model_type": "matcha-tts", "sample_rate": str(sample_rate_hz), "version": "1", "n_speakers": "1",
            "jieba": "1", "has_espeak": "0", "use_eos_bos": "0", "pad_id": "0", "voice": "zh", "language": "Chinese",
        },
    )  # fmt: skip
    save(model, str(path))


def render(vocoder: Path, mel: np.ndarray, sample_rate_hz: int, folder: Path) -> tuple[np.ndarray, int]:
    """Samples and sample rate of ``mel``, rendered by sherpa-onnx with the vocoder's file."""
    import sherpa_onnx

    write_acoustic_model(folder / "acoustic.onnx", mel, sample_rate_hz)
    (folder / "tokens.txt").write_text("_ 0\na 1\n", encoding="utf-8")
    (folder / "lexicon.txt").write_text("好 a\n", encoding="utf-8")
    matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=str(folder / "acoustic.onnx"),
        vocoder=str(vocoder),
        lexicon=str(folder / "lexicon.txt"),
        tokens=str(folder / "tokens.txt"),
    )
    model = sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, num_threads=1, debug=False)
    config = sherpa_onnx.OfflineTtsConfig(model=model, max_num_sentences=1, silence_scale=1.0)
    sound = sherpa_onnx.OfflineTts(config).generate("好")
    return np.asarray(sound.samples, np.float32), sound.sample_rate
