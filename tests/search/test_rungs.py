"""What judges a network between the stages of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lilliput.data.dataset import Split
from lilliput.search.rungs import drop_in_torch, judging, metric_in_torch
from lilliput.testing import tiny_context, tiny_network


def test_the_originals_answers_are_the_truth_where_there_is_none(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    bare = context.data.map_splits(lambda split: Split(split.inputs))
    context = judging(replace(context, data=bare))
    split = context.data.validation
    assert context.data.train.targets is None
    assert metric_in_torch(context.original.the_network(), split, context) == 100
    other = tiny_network(seed=1)
    agreed = metric_in_torch(other, split, context)
    assert agreed < 100
    assert drop_in_torch(other, split, context) == 100 - agreed


def test_a_truth_that_is_there_judges(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    same = judging(context).data.validation
    assert np.array_equal(same.targets, context.data.validation.targets)
