"""A run shown where people already look, while it goes on: MLflow, TensorBoard.

A tracker follows the run's journal. Steps know nothing of it, and what goes wrong with it is no
concern of the run.
"""

from lilliput.track.base import TRACKERS, Tracker, chosen
from lilliput.track.follower import followed

__all__ = ["TRACKERS", "Tracker", "chosen", "followed"]
