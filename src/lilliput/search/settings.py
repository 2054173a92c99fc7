"""Settings that all searches by evolution share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lilliput.context import Context
from lilliput.effort import Effort
from lilliput.search.evolution import Algorithm
from lilliput.search.objectives import Counted

Objective = Literal["loss", Counted, "latency"]


class EvolutionSettings(BaseModel):
    """How long a search looks, at what, and what it delivers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objectives: tuple[Objective, ...] = Field(
        ("loss", "bytes"), min_length=2, description="what is to be small, the loss first"
    )
    algorithm: Algorithm = Field(
        "nsga2", description="nsga2; nsga3 for three objectives and more; paper; or random"
    )
    population: int = Field(24, ge=4, le=2000, description="candidates of a generation")
    generations: int = Field(10, ge=1, le=1000, description="number of generations")
    minutes: float | None = Field(
        None,
        gt=0,
        description="time to evolve, over all resumes; what was found by then is trained",
    )
    seed: int = Field(0, ge=0, description="another seed, another search of the same run")
    max_drop: float | None = Field(
        None, gt=0, description="metric a candidate may lose untrained; unset: a quarter of it"
    )
    min_metric: float | None = Field(
        None, description="the same limit as a value of the metric; not with max_drop"
    )
    limits: dict[Counted, Annotated[float, Field(gt=0)]] = Field(
        {}, description="costs that a candidate may have at most, as {macs: 20000000}"
    )
    protect: tuple[str, ...] = Field((), description="layers (globs) that stay as they are")
    screen_examples: int = Field(1000, ge=1, description="validation examples of the first rung")
    rank_examples: int = Field(
        5000, ge=0, description="of the second, for the better half; 0: none"
    )
    screen_steps: int = Field(60, ge=0, description="batches of a short training; 0: none")
    tau_sample: int = Field(6, ge=0, description="more that climb, to see what a rung's order says")
    refit: bool = Field(True, description="fit weights in closed form after a cut, before training")
    refit_examples: int = Field(512, ge=1, description="training examples for that and for norms")
    points: int = Field(4, ge=1, le=100, description="networks delivered, spread over the front")
    deliver: tuple[str, ...] = Field(
        (), description="ids of members, as the report shows them, in place of `points`"
    )
    epochs: int = Field(10, ge=0, description="of the full training of each")
    learning_rate: float = Field(0.02, gt=0, description="peak of the cosine")
    batch_size: int = Field(64, ge=1, description="examples a step")

    @property
    def most(self) -> dict[str, float]:
        """`limits`, by names that are any text."""
        return {str(cost): limit for cost, limit in self.limits.items()}

    def effort(self, context: Context) -> Effort:  # noqa: ARG002
        """The evolution, and the full trainings of what it found, which `minutes` do not bound."""
        tried, full = self.population * self.generations, float(self.points * self.epochs)
        trainings = Effort(epochs=(full, full), batch_size=self.batch_size, gives=(1, self.points))
        if self.minutes is not None:
            return trainings._replace(seconds=(0, 60 * self.minutes))
        screened, ranked = tried * self.screen_examples, tried * self.rank_examples / 2
        return trainings._replace(
            batches=(0, tried * self.screen_steps / 2), answers=(screened, screened + ranked)
        )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.objectives[0] != "loss":
            raise ValueError(f"the first objective is loss, not {self.objectives[0]}")
        if len(set(self.objectives)) != len(self.objectives):
            raise ValueError("an objective is given twice")
        if self.max_drop is not None and self.min_metric is not None:
            raise ValueError("give max_drop or min_metric, not both: they are one limit")
        return self
