"""Structural changes as JSON, replayed on a fresh network of the user's class.

A pruned network is delivered as the class, its edits and a plain state dict: no pickled code.
Each kind of edit is one file of this folder: a function that makes the entry, and one under
`EDITS` that does it on a module.
"""

from lilliput.prune.edits.cut_channels import cut_edit
from lilliput.prune.edits.frequency_convolution import frequency_edit
from lilliput.prune.edits.pack_kernels import pack_edit
from lilliput.prune.edits.registry import EDITS, apply, replay
from lilliput.prune.edits.remove_block import put_identity, remove_edit

__all__ = [
    "EDITS",
    "apply",
    "cut_edit",
    "frequency_edit",
    "pack_edit",
    "put_identity",
    "remove_edit",
    "replay",
]
