"""Recipes: read, written again, and every mistake told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.budget import Budget
from lilliput.errors import LilliputError, Mistakes
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.steps.base import STAGES, Search
from lilliput.target import Target

GOOD = """\
model: net.py:build
data: digits
task: classification
target: {runtime: onnxruntime, threads: 2}
budget: {max_latency_ms: 3, max_bytes: 20000}
stages:
  - train: {epochs: 3, hints: [a, b]}
  - export
  - quantize: {}
"""


def messages(text: str, path: Path | None = None) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        Recipe.parse(text, path)
    return [str(error) for error in caught.value.errors]


def test_short_and_long_forms_agree():
    long = """\
model:
  factory: net.py:build
data:
  source: digits
task:
  name: classification
target:
  threads: 2
budget:
  max_latency_ms: 3.0
  max_bytes: 20000
stages:
  - train:
      epochs: 3
      hints: [a, b]
  - export: {}
  - quantize:
"""
    assert Recipe.parse(GOOD) == Recipe.parse(long)
    assert Recipe.parse(GOOD).stages[0].epochs == 3  # type: ignore[attr-defined]


def test_ten_mistakes_are_told_at_once_each_with_its_line():
    # users-ask 39: ten broken places, ten distinct messages
    text = """\
model: {factory: net.py:build, wieghts: a.safetensors}
data: {}
task: {name: clasification}
target: {runtime: onnxruntim}
budget:
  max_latency_ms: 3ms
  max_drop: -1
seed: 1.5
stages:
  - trian: {epochs: 3}
  - train: {epochs: -1}
  - train:
      learnig_rate: 0.1
      optimizer: sdg
  - quantize: {bits: 8}
"""
    told = messages(text)
    assert told == [
        "recipe:1: model.wieghts: there is no such key\n  → did you mean 'weights'?",
        "recipe:2: data.source: is missing\n  → a folder, an .npz, a named set, or module:function",
        "recipe:3: task.name: no task 'clasification'\n  → did you mean 'classification'?",
        "recipe:4: target.runtime: no runtime 'onnxruntim'\n  → did you mean 'onnxruntime'?",
        (
            "recipe:6: budget.max_latency_ms: '3ms' must be a number\n"
            "  → the field is in milliseconds: max_latency_ms: 3"
        ),
        "recipe:7: budget.max_drop: -1 must be at least 0",
        "recipe:8: seed: 1.5 must be a whole number",
        "recipe:10: stages[0].trian: there is no such stage\n  → did you mean 'train'?",
        "recipe:11: stages[1].train.epochs: -1 must be at least 0",
        (
            "recipe:13: stages[2].train.learnig_rate: there is no such key\n"
            "  → did you mean 'learning_rate'?"
        ),
        (
            "recipe:14: stages[2].train.optimizer: 'sdg' must be 'sgd' or 'adam'\n"
            "  → did you mean 'sgd'?"
        ),
    ]


def test_the_whole_listing_is_numbered():
    with pytest.raises(Mistakes, match=r"2 mistakes\n  1\. recipe:1: .*\n(.*\n)?  2\. recipe:2: "):
        Recipe.parse(GOOD.replace("net.py:build", "{}").replace("digits", "{source: 3}"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("", "recipe:1: dta: there is no such key\n  → did you mean 'data'"),
        ("data: digits\ntask: classification", "recipe:1: stages: is missing"),
    ],
)
def test_missing_and_unknown_sections(change: str, told: str):
    text = "dta: digits\n" if not change else f"model: a.py:b\n{change}\n"
    assert any(message.startswith(told) for message in messages(text))


def test_a_key_given_twice_names_both_lines():
    told = messages(GOOD + "data: other\n")
    assert told == ["recipe:10: data (again): 'data' was given in line 2 already"]


def test_stages_must_fit_in_a_row():
    told = messages(GOOD.replace("  - export\n", ""))
    assert told == [
        (
            "recipe:8: stages[1].quantize: works on exported files, and gets torch networks here\n"
            "  → put an `export` stage before it"
        )
    ]
    swapped = GOOD.replace("  - export\n  - quantize: {}\n", "  - export\n  - train: {}\n")
    assert messages(swapped) == [
        (
            "recipe:9: stages[2].train: works on torch networks, and gets exported files here\n"
            "  → move it before `export`"
        )
    ]


ARMS = GOOD.replace(
    "  - train: {epochs: 3, hints: [a, b]}\n",
    "  - arms:\n      short: [{train: {epochs: 3}}]\n      none: []\n",
)


def test_arms_are_written_and_read_again():
    recipe = Recipe.parse(ARMS)
    assert [stage.name for stage in recipe.stages] == ["arms", "export", "quantize"]
    assert recipe.stages[0].described() == {
        "arms": {"short": [{"train": {"epochs": 3}}], "none": []}
    }
    assert Recipe.parse(recipe.dump()) == recipe
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("short: [{trian: {}}]", "recipe:8: stages[0].arms.short[0].trian: there is no such stage"),
        (
            "short: [{train: {epochs: -1}}]",
            "recipe:8: stages[0].arms.short[0].train.epochs: -1 must",
        ),
        (
            "short: [quantize]",
            "recipe:8: stages[0].arms.short[0].quantize: works on exported files",
        ),
        ("short: [export]", "recipe:7: stages[0].arms: some arms end with networks and others"),
        ("a/b: [train]", "recipe:8: stages[0].arms.a/b: cannot name an arm"),
        ("short: [{arms: {a: [], b: []}}]", "recipe:8: stages[0].arms.short[0].arms: is no step"),
        ("short: train", "recipe:8: stages[0].arms.short: must be a list of stages"),
    ],
)
def test_mistakes_within_arms_have_their_place(given: str, told: str):
    text = ARMS.replace("short: [{train: {epochs: 3}}]", given)
    assert any(message.startswith(told) for message in messages(text)), messages(text)


def test_one_arm_is_none():
    assert "needs two arms or more" in messages(ARMS.replace("      none: []\n", ""))[0]


def test_an_onnx_model_needs_no_export_and_cannot_be_trained():
    text = GOOD.replace("net.py:build", "net.onnx")
    told = messages(text)
    assert "give the model as a torch network" in told[0]
    files_only = text.replace("  - train: {epochs: 3, hints: [a, b]}\n  - export\n", "")
    assert Recipe.parse(files_only).model.kind == "artifact"


def test_a_chain_is_judged_by_its_right_stages_even_beside_wrong_ones():
    text = GOOD.replace("train: {epochs: 3, hints: [a, b]}", "trian: {}")
    assert len(messages(text)) == 1


def test_what_works_on_the_original_comes_first(monkeypatch):
    class Original(Search):
        name, takes, gives, first = "original", "network", "network", True

    monkeypatch.setitem(STAGES._things, "original", Original)
    told = messages(GOOD.replace("  - export\n", "  - original\n  - export\n"))
    assert len(told) == 1
    assert "stages[1].original: works on the original alone" in told[0]
    assert Recipe.parse(GOOD.replace("stages:\n", "stages:\n  - original\n"))


def test_model_and_file_exclude_one_another():
    told = messages(GOOD.replace("net.py:build", "{factory: a.py:b, file: c.onnx}"))
    assert told == [
        "recipe:1: model: needs either `factory` (file.py:function) or `file` (.onnx, .pt2)"
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("- {train: {}, export: {}}", "one name with its settings, not 2 names"),
        ("- 7", "one name with its settings, not 7"),
        ("- train: 3", "must be a section of `key: value` lines"),
        ("- train: {hints: 5}", "5 must be a list"),
        ("- train: {note: [1]}", "must be text"),
        ("- train: {epochs: many}", "'many' must be a whole number"),
        ("- quantize: {bits: 9}", "9 must be at most 8"),
        ("- train: {learning_rate: 0.0}", "0.0 must be more than 0"),
    ],
)
def test_wrong_entries_of_the_stages(line: str, told: str):
    text = GOOD[: GOOD.index("  - train")] + f"  {line}\n"
    assert any(told in message for message in messages(text))


def test_stages_that_are_no_list():
    text = GOOD[: GOOD.index("stages:")] + "stages: all of them\n"
    assert "must be a list of stages" in messages(text)[0]


def test_settings_of_a_task():
    assert (
        Recipe.parse(GOOD.replace("classification", "{name: classification, top: 5}")).task.top == 5
    )  # type: ignore[attr-defined]
    unknown = GOOD.replace("classification", "{name: classification, topp: 5}")
    assert messages(unknown) == [
        "recipe:3: task.topp: this task has no such setting\n  → did you mean 'top'?"
    ]
    bad = GOOD.replace("classification", "{name: classification, top: 0}")
    assert messages(bad) == ["recipe:3: task: top = 0 must be at least 1"]


def test_a_precision_that_the_runtime_lacks():
    told = messages(GOOD.replace("{runtime: onnxruntime, threads: 2}", "onnxruntime:f17"))
    assert told[0].startswith("recipe:4: target: onnxruntime has no precision 'f17'")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: [1, 2\ndata: x", r"recipe:2: this is no YAML: while parsing a flow sequence"),
        ("- a\n- b", "a recipe is a mapping with model, data, task and stages"),
        ("", "a recipe is a mapping"),
        ("a: !!python/name:os.system", "recipe:1: this is no YAML: could not determine"),
        ("a: !!python/object/apply:os.system [ls]", "recipe:1: a: a recipe has no tags"),
        ("a: &x [*x]", "no YAML"),
        ("a: " + "[" * 40 + "]" * 40, "no YAML: more or deeper values"),
        ("x" * 1_000_001, "too many for a recipe"),
        ("a: \x07", "no YAML"),
    ],
)
def test_what_is_no_recipe(text: str, told: str):
    with pytest.raises(LilliputError, match=told):
        Recipe.parse(text)


def test_a_short_file_cannot_stand_for_a_huge_one():
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(LilliputError, match="more or deeper values"):
        Recipe.parse(bomb)


def test_python_objects_in_yaml_are_never_made(tmp_path: Path):
    trap = tmp_path / "trap"
    text = GOOD + f"extra: !!python/object/apply:pathlib.Path.touch [{trap}]\n"
    with pytest.raises(LilliputError):
        Recipe.parse(text)
    assert not trap.exists()


def test_paths_begin_at_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "net.py").write_text("raise SystemExit('run')")
    (home / "net.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("net.py:build", "{factory: 'net.py:build', weights: net.safetensors}")
    text = text.replace("digits", "{source: photos, test: digits, validation: 'mine.py:batches'}")
    (home / "recipe.yaml").write_text(text)
    recipe = Recipe.read("home/recipe.yaml")
    assert recipe.model.factory == f"{home}/net.py:build"
    assert recipe.model.weights == f"{home}/net.safetensors"
    assert recipe.data.source == f"{home}/photos"
    assert recipe.data.test == "digits"
    assert recipe.data.validation == f"{home}/mine.py:batches"
    assert Recipe.parse(recipe.dump()) == recipe


def test_a_named_set_stays_one_beside_a_folder_of_its_name(tmp_path: Path):
    (tmp_path / "digits").mkdir()
    recipe = Recipe.parse(GOOD.replace("digits", "{source: digits, test: set5}"))
    assert recipe.placed(tmp_path).data == recipe.data
    assert recipe.data.settings() == {"test": "set5"}


def test_placing_makes_a_recipe_work_from_anywhere(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    recipe = Recipe.parse(GOOD.replace("digits", "photos"))
    placed = recipe.placed(tmp_path)
    assert placed.model.factory == f"{tmp_path}/net.py:build"
    assert placed.data.source == f"{tmp_path}/photos"
    assert placed.placed(Path("/elsewhere")) == placed
    assert placed.stages == recipe.stages


def test_files_that_are_not_there_come_with_the_nearest(tmp_path: Path):
    (tmp_path / "resnet.py").touch()
    text = GOOD.replace("net.py:build", "{factory: 'rsnet.py:build', weights: gone/w.pt}")
    (tmp_path / "r.yaml").write_text(text)
    told = messages(text, tmp_path / "r.yaml")
    assert told[0].endswith(f"no file at '{tmp_path}/rsnet.py'\n  → did you mean 'resnet.py'?")
    assert told[1].endswith(f"there is no folder {tmp_path}/gone")
    text = GOOD.replace("net.py:build", "net.onnx")
    assert f"{tmp_path} has no .onnx file" in messages(text, tmp_path / "r.yaml")[0]


def test_reading_says_which_file(tmp_path: Path):
    with pytest.raises(LilliputError, match="no recipe at"):
        Recipe.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Müll".encode("latin-1"))
    with pytest.raises(LilliputError, match="UTF-8 text"):
        Recipe.read(tmp_path / "latin.yaml")


def test_a_dump_explains_itself():
    text = Recipe.parse(GOOD).dump()
    assert text.startswith("# A lilliput recipe.")
    assert "      epochs: 3                          # passes over the training split\n" in text
    assert "  - export: {}\n" in text
    assert "      hints: [a, b]" in text


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


@given(
    factory=words.filter(bool),
    source=words,
    note=st.none() | words,
    rate=st.floats(min_value=1e-12, max_value=1e12),
    drop=st.none() | st.floats(min_value=0, max_value=1e6),
    mean=st.integers(0, 1).flatmap(
        lambda n: st.lists(
            st.floats(allow_nan=False, allow_infinity=False), min_size=1 + 2 * n, max_size=1 + 2 * n
        )
    ),
    seed=st.integers(0, 2**63 - 1),
    isa=st.lists(st.sampled_from(["avx2", "neon"]), max_size=2),
    minutes=st.none() | st.floats(min_value=0.01, max_value=1e5),
)
def test_dump_and_parse_are_inverse(
    factory: str, source: str, note: str | None, rate: float, drop: float | None,
    mean: list[float], seed: int, isa: list[str], minutes: float | None,
):  # fmt: skip
    recipe = Recipe(
        model={"factory": factory},  # type: ignore[arg-type]
        data={"source": source},  # type: ignore[arg-type]
        task="classification",  # type: ignore[arg-type]
        preprocessing=Preprocessing(mean=tuple(mean)),
        target=Target(isa=tuple(isa)),
        budget=Budget(max_drop=drop),
        seed=seed,
        time_budget_minutes=minutes,
        stages=[{"train": {"learning_rate": rate, "note": note}}, "export"],  # type: ignore[arg-type]
    )
    assert Recipe.parse(recipe.dump()) == recipe


def test_from_python_the_stages_may_be_plain_or_objects():
    plain: dict[str, Any] = {"model": "a.py:b", "data": "digits", "task": "classification"}
    made = Recipe(**plain, stages=[STAGES["train"](epochs=4), "export"])
    assert made == Recipe(**plain, stages=[{"train": {"epochs": 4}}, {"export": {}}])
    with pytest.raises(ValueError, match=r"stages:1: \[0\].trian: there is no such stage"):
        Recipe(**plain, stages=["trian"])


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nets/resnet.py:resnet20", "resnet20"),
        ("mynet.py:build", "mynet"),
        ("package.nets:make", "nets"),
        ("some/net.onnx", "net"),
    ],
)
def test_a_models_short_name(reference: str, name: str):
    assert (
        Recipe.parse(
            GOOD.replace("net.py:build", reference).replace(
                "  - train: {epochs: 3, hints: [a, b]}\n  - export\n",
                "" if reference.endswith("onnx") else "  - export\n",
            )
        ).model.name
        == name
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("target: ':bf16'", "target: target ':bf16' names no runtime; e.g. onnxruntime"),
        ("target: {threads: two}", "target.threads: 'two' must be a whole number"),
        ("target: 7", "target: 7 must be a section of `key: value` lines"),
        (
            "preprocessing: {chanels: 1}",
            "preprocessing.chanels: there is no such key\n  → did you mean 'channels'?",
        ),
        (
            "budget: {max_bytes: lots}",
            "budget.max_bytes: 'lots' must be a whole number\n  → the field is in bytes",
        ),
        (
            "budget: {max_bytes: 200kB}",
            (
                "budget.max_bytes: '200kB' must be a whole number\n"
                "  → the field is in bytes: max_bytes: 200000"
            ),
        ),
        (
            "time_budget_minutes: 1h",
            (
                "time_budget_minutes: '1h' must be a number\n"
                "  → the field is in minutes: time_budget_minutes: 60"
            ),
        ),
        ("budget: {max_drop: [" + "1, " * 40 + "]}", "budget.max_drop: [1, 1, 1, 1, 1, 1, 1, 1"),
    ],
)
def test_mistakes_in_the_optional_sections(line: str, told: str):
    text = GOOD.replace("target: {runtime: onnxruntime, threads: 2}\n", "")
    text = text.replace("budget: {max_latency_ms: 3, max_bytes: 20000}\n", "")
    (message,) = messages(f"{line}\n{text}")
    assert message.startswith(f"recipe:1: {told}")


def test_mistakes_in_nested_values_of_a_stage_keep_their_place():
    text = GOOD.replace("hints: [a, b]", "hints: [a, [b]]")
    assert messages(text) == ["recipe:7: stages[0].train.hints[1]: ['b'] must be text"]
