"""ONNX graphs taken apart, rewritten without changing what they compute, and put together again."""

from lilliput.graph.model import Graph, attributes

__all__ = ["Graph", "attributes"]
