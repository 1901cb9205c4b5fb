"""OpenVINO GenAI: plain greedy and prompt lookup in float32, and what it makes of a GGUF file with its own settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from openvino import opset13 as ops

from decodery.bench.runners import Mark, Told, gguf_of
from decodery.core.errors import DecoderyError
from decodery.core.files import make_once
from decodery.model.load import load
from decodery.model.model import Model
from decodery.model.openvino.folder import folder_of
from decodery.model.openvino.places import strip
from decodery.model.resolve import place_of

DRAFTS, NGRAM = 5, 3
"""Prompt lookup as in OpenVINO GenAI's own sample."""


class GenAiPeer:
    """``LLMPipeline`` over the graph of our own conversion, given the inputs that pipeline expects; or (mode "gguf") over
    the graph that it makes of the file itself, in whatever precision it chooses."""

    def __init__(self, name: str, spec: str, model: Model, mode: str, option: str) -> None:
        self.name, self.eos = name, set(model.eos)
        self.options = {"num_assistant_tokens": DRAFTS, "max_ngram_size": NGRAM} if mode == "lookup" else {}
        if mode == "gguf":
            self.pipeline: Any = genai.LLMPipeline(str(gguf_of(name, spec)), "CPU")
            return
        # Without the hint it computes in bfloat16 wherever the processor can, which is another model.
        lookup = {"prompt_lookup": True} if mode else {}
        self.pipeline = genai.LLMPipeline(str(_exported(spec, model)), "CPU", INFERENCE_PRECISION_HINT="f32", **lookup)

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told:
        ids = np.array([prompt], np.int64)
        inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = genai.GenerationConfig(
            max_new_tokens=limit, do_sample=False, stop_token_ids=self.eos, ignore_eos=False, **self.options
        )
        marks = _Marks(mark)
        self.pipeline.generate(inputs, config, marks)
        return Told(marks.bursts)


class _Marks(genai.StreamerBase):  # type: ignore[misc]
    """Reports token ids, one or several at a time."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark, self.bursts = mark, 0

    def write(self, token: Any) -> Any:
        self.bursts += 1
        self.mark([token] if isinstance(token, int) else list(token))
        return genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing to flush."""


def _exported(spec: str, model: Model) -> Path:
    """A folder as optimum-intel would export it; made once."""
    place = place_of(spec)
    source = Path(place.path)
    if not place.local:
        raise DecoderyError(f"openvino: {spec} is no local model")
    load(spec, backend="openvino")
    ours = folder_of(place)

    def build(folder: Path) -> None:
        openvino.save_model(plain_graph(ours / "model.xml"), folder / "openvino_model.xml", compress_to_fp16=False)
        _save_tokenizer(model, folder)
        for file in ("config.json", "generation_config.json"):
            if (source / file).exists():
                shutil.copy(source / file, folder)

    return make_once(ours.with_name(f"{ours.name}-genai"), build)


def _save_tokenizer(model: Model, folder: Path) -> None:
    """The pipeline insists on a tokenizer, though it is given token ids."""
    from openvino_tokenizers import convert_tokenizer

    for graph, name in zip(
        convert_tokenizer(model.tokenizer, with_detokenizer=True), ("tokenizer", "detokenizer"), strict=True
    ):
        openvino.save_model(graph, folder / f"openvino_{name}.xml")


def plain_graph(path: Path) -> Any:
    """Our graph with a causal mask of its own and logits of all positions: what OpenVINO GenAI reads."""
    graph = openvino.Core().read_model(path)
    strip(graph)
    inputs = {node.output(0).any_name: node for node in graph.get_parameters()}
    masks = [name for name in inputs if name.startswith("mask.")]
    if masks != ["mask.full_attention"]:
        raise DecoderyError("openvino: only models of full attention are exported for the comparison")
    attention = ops.parameter(openvino.PartialShape([-1, -1]), np.int64, name="attention_mask")
    attention.output(0).get_tensor().set_names({"attention_mask"})
    causal = _causal(attention, inputs["input_ids"])
    for reader in inputs[masks[0]].output(0).get_target_inputs():
        reader.replace_source_output(causal.output(0))
    logits = next(r for r in graph.get_results() if "logits" in r.input(0).get_tensor().get_names())
    head = logits.input(0).get_source_output().get_node()
    states = head.input(0).get_source_output()
    while "aten::index" in states.get_node().get_friendly_name():  # the choice of columns
        states = states.get_node().input(0).get_source_output()
    head.input(0).replace_source_output(states)
    graph.add_parameters([attention])
    for name in (masks[0], "columns"):
        graph.remove_parameter(inputs[name])
    for node in graph.get_parameters():
        node.set_friendly_name(node.output(0).any_name)
        if node.get_friendly_name() in ("input_ids", "position_ids"):
            node.set_partial_shape(openvino.PartialShape([-1, -1]))
    graph.validate_nodes_and_infer_types()
    return graph


def _causal(attention: Any, ids: Any) -> Any:
    """``[1, 1, n, t]`` float: the last ``n`` of ``t`` positions see what is not after them."""

    def number(value: Any) -> Any:
        return ops.constant(np.array(value, np.int64))

    def length(node: Any) -> Any:
        return ops.gather(ops.shape_of(node, output_type="i64"), number(1), number(0))

    t, n = length(attention), length(ids)
    columns = ops.range(number(0), t, number(1), output_type="i64")
    rows = ops.range(ops.subtract(t, n), t, number(1), output_type="i64")
    see = ops.less_equal(ops.unsqueeze(columns, number(0)), ops.unsqueeze(rows, number(1)))
    blocked = ops.constant(np.finfo(np.float32).min)
    return ops.unsqueeze(ops.select(see, ops.constant(np.float32(0)), blocked), number([0, 1]))
