"""Store the learned weights of an ONNX model in fewer bits; it still computes in float32, from what they became."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from torch import Tensor

Precision = Literal["float32", "float16", "int8"]
FEWEST = 4096  # numbers of a weight that is worth it


def compress(model: Any, weights: Iterable[Tensor], precision: Precision) -> None:
    """Change an ONNX model.

    Half precision is cast when the model is loaded. Of 8 bits, every output channel has a scale of its own, so that
    its largest weight is 127. Tables of transforms and filters stay as they are.

    Args:
        model: the model.
        weights: the learned weights; the model may hold them transposed.
        precision: the precision to store them in.
    """
    from onnx import TensorProto, helper, numpy_helper

    if precision == "float32":
        return
    learned = {_fingerprint(weight.detach().numpy()) for weight in weights if weight.numel() >= FEWEST}
    nodes, stored, kept = [], [], []
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < FEWEST:
            kept.append(initializer)
            continue
        values = numpy_helper.to_array(initializer)
        if _fingerprint(values) not in learned:
            kept.append(initializer)
            continue
        name = initializer.name
        if precision == "float16":
            stored.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_stored"))
            nodes.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
            continue
        axis = 1 if values.ndim == 2 else 0  # of the output channels: of a product, or of a convolution
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12).astype(np.float32) / 127
        stored.append(numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}_stored"))
        stored.append(numpy_helper.from_array(scale.reshape(-1), f"{name}_scale"))
        stored.append(numpy_helper.from_array(np.zeros(scale.size, np.int8), f"{name}_zero"))
        # Without a zero, older runtimes read the codes as uint8.
        inputs = [f"{name}_stored", f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
    all_nodes = [*nodes, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*kept, *stored])
    model.graph.node.extend(all_nodes)


def _fingerprint(values: np.ndarray) -> bytes:
    """The same for every transposition of a weight."""
    return np.sort(values, axis=None).tobytes()
