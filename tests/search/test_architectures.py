"""Chains of removed blocks, and architectures that are their edits."""

from __future__ import annotations

import torch

from lilliput.prune.edits import remove_edit
from lilliput.search.architectures import Architecture, block_chain, name_of, spread, unique
from lilliput.testing import tiny_network


def test_the_chain_takes_what_saves_most_per_loss_and_nests() -> None:
    costs = {"a": 1.0, "b": 8.0, "c": 3.0}
    saved = {"a": 0.1, "b": 0.1, "c": 0.3}
    chain = list(block_chain(list(costs), saved, lambda gone: sum(costs[b] for b in gone), most=3))
    assert chain == [("c",), ("c", "a"), ("c", "a", "b")]


def test_the_chain_notices_what_removals_cost_together() -> None:
    """`b` is free alone, but not once `a` is gone: then `c` goes first."""
    losses = {("a",): 0.0, ("b",): 0.1, ("c",): 1.0, ("a", "b"): 50.0, ("a", "c"): 1.5}
    saved = dict.fromkeys("abc", 0.2)
    chain = list(block_chain("abc", saved, lambda gone: losses.get(tuple(gone), 60.0), most=2))
    assert chain == [("a",), ("a", "c")]


def test_an_architecture_is_rebuilt_from_its_edits_with_the_original_weights() -> None:
    original = tiny_network()
    smaller = Architecture("b1", ("block2",), 0.0, (remove_edit("block2"),)).build(original)
    kept = smaller.module.state_dict()
    assert not any(name.startswith("block2") for name in kept)
    assert torch.equal(kept["stem.weight"], original.module.state_dict()["stem.weight"])
    assert isinstance(original.module.block2, torch.nn.Module)
    assert any(True for _ in original.module.block2.parameters())  # type: ignore[union-attr, operator]
    assert smaller.edits == (remove_edit("block2"),)


def test_names_say_blocks_and_widths() -> None:
    assert name_of((), 0.0) == "whole"
    assert name_of(("x", "y"), 0.0) == "b2"
    assert name_of(("x",), 0.25) == "b1-w25"


def test_spread_keeps_the_ends() -> None:
    items = list("abcdefghij")
    assert spread(items, 3) == ["a", "e", "j"]
    assert spread(items, 20) == items
    assert spread(items, 1) == ["f"]


def test_equal_edits_are_one_architecture() -> None:
    same = [Architecture(k, (), 0.0, ({"op": "x"},)) for k in ("first", "second")]
    assert [a.key for a in unique(same)] == ["first"]
