"""A run as text: model, data, task, target, budget and stages, all mistakes told at once."""

from lilliput.recipe.document import DataSection, ModelSection, Recipe, TaskSection, model_name
from lilliput.recipe.stages import build_stages, check_chain, one_by_one

__all__ = [
    "DataSection",
    "ModelSection",
    "Recipe",
    "TaskSection",
    "build_stages",
    "check_chain",
    "model_name",
    "one_by_one",
]
