"""Pointer networks: trained in seconds, decoded by the engine's own searches and constraints."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import decodery
from decodery.constrain.once import Once
from decodery.laws.specimens import TOYS
from decodery.model.pointer import PointerModel, PointerNetwork

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "claims"))
from pointing import hull_of, hulls, lengths_of, sorting, tours, train, travelling

torch.set_num_threads(1)


@cache
def sorter() -> PointerNetwork:
    """Some twenty seconds of training on three to five numbers."""
    return train(1, sorting(3, 5), steps=600)


def answer(network: PointerNetwork, inputs: torch.Tensor, **options: object) -> decodery.Output:
    model = PointerModel(network, inputs)
    return decodery.decode(model, model.prompt, draft="none", plan="off", max_new_tokens=40, **options)  # type: ignore[call-overload]


def test_sorting_is_learnt_in_seconds_and_answers_are_permutations() -> None:
    task, rng, right = sorting(5, 5), np.random.default_rng(7), 0
    for _ in range(100):
        inputs, _, wanted = task(1, rng)
        output = answer(sorter(), inputs[0], constrain="once")
        assert output.finish_reason == "stop"
        assert sorted(output.tokens) == [0, 1, 2, 3, 4, 5]
        right += output.tokens == wanted[0].tolist()
    assert right >= 80


def test_searches_of_the_engine_decode_it() -> None:
    """A beam that holds all 120 permutations finds the likeliest, which is what the exact search proves."""
    inputs, _, _ = sorting(5, 5)(1, np.random.default_rng(3))
    beam = answer(sorter(), inputs[0], constrain="once", search="beam:width=120,length_penalty=0,early_stopping=never")
    exact = answer(sorter(), inputs[0], constrain="once", search="exact")
    assert exact.tokens == beam.tokens
    smc = answer(sorter(), inputs[0], constrain="once", search="smc:particles=4", guide="temperature:1.0", seed=1)
    assert sorted(smc.tokens) == [0, 1, 2, 3, 4, 5]


def test_any_number_of_inputs_will_do() -> None:
    """Trained on at most five; longer inputs run, and give permutations (how many are right is not promised)."""
    inputs, _, _ = sorting(9, 9)(1, np.random.default_rng(3))
    assert sorted(answer(sorter(), inputs[0], constrain="once").tokens) == list(range(10))


def test_used_and_padded_positions_have_no_probability() -> None:
    network = PointerNetwork(2, 8)
    inputs, there, answers = hulls(3, 7)(16, np.random.default_rng(1))
    laws = network(inputs, there, answers).softmax(-1)
    assert torch.allclose(laws.sum(-1), torch.ones_like(laws[..., 0]), atol=1e-6)
    for row, count in enumerate(there.tolist()):
        assert (laws[row, :, count:-1] == 0).all()
        assert (laws[row, :, :count] > 0).all()


def test_a_batch_and_the_engine_compute_the_same() -> None:
    """Inputs of different lengths padded together, and one input token by token."""
    network = PointerNetwork(2, 8)
    inputs, there, answers = hulls(4, 7)(6, np.random.default_rng(2))
    n = inputs.shape[1]
    with torch.no_grad():
        batch = network(inputs, there, answers)
    for row, count in enumerate(there.tolist()):
        model = PointerModel(network, inputs[row, :count])
        words = [count, *(position for position in answers[row].tolist() if position != n)]
        for step in range(len(words)):
            want = batch[row, step][[*range(count), n]]
            assert torch.allclose(model.lm(tuple(words[: step + 1])), want, atol=1e-5)


def test_the_tasks_are_what_they_say() -> None:
    square = np.array([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert hull_of(square) == [1, 4, 2, 3]
    assert len(tours(6)) == 60
    points = np.array([[[0, 0], [0, 1], [1, 1], [1, 0]]], dtype=float)
    assert lengths_of(points, tours(4)).min() == pytest.approx(4.0)
    inputs, _, answers = travelling(5)(3, np.random.default_rng(1))
    assert answers.shape == (3, 6)
    assert (answers[:, 0] == 0).all()
    assert inputs.shape == (3, 5, 2)


def test_once_lets_no_token_come_twice() -> None:
    for every in (True, False):
        once = Once(all=every).bind(TOYS["ends"])
        state = once.advance(once.start(()), 1)
        assert state is not None
        assert once.advance(state, 1) is None
        assert once.mask(state).tolist() == [True, False, False]
        assert once.may_end(state) != every
        last = once.advance(state, 0)
        assert last is not None
        assert once.may_end(last)
