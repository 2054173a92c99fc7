"""The distill engine: teacher → student over a source of inputs, with a sum of losses.

One training loop serves fine-tuning (no teacher), logit and feature distillation, and whatever
brings a loss term of its own.
"""
