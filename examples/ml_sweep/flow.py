"""Which model reads handwritten digits best? A grid of them in parallel, and the best one refitted.

What it shows: a map over a grid, with the training data handed to each task run by reference
(`unmapped`), and a fan-in that goes on although a configuration fails (`allow_failure`). The test
data are the result of a task of their own, which nothing sees before the best model is chosen.

How to run, after `pip install -e ".[examples]"`:

    raysched run examples/ml_sweep/flow.py
    raysched run examples/ml_sweep/flow.py --param data=breast_cancer --param models='["svm"]'
    python examples/ml_sweep/flow.py

What you will see: `ml-sweep/report.md` and a picture, below the current directory. One
configuration is bad on purpose, an SVM with a negative penalty: its task run fails, the report says
why, and the flow completes.
"""

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from raysched import allow_failure, flow, get_run_logger, task, unmapped

Data = Literal["digits", "breast_cancer"]
Model = Literal["svm", "forest", "neighbours", "logistic"]

ESTIMATORS = {
    "svm": SVC,
    "forest": partial(RandomForestClassifier, random_state=0),
    "neighbours": KNeighborsClassifier,
    "logistic": partial(LogisticRegression, max_iter=500),
}
GRID: dict[Model, list[dict[str, Any]]] = {
    "svm": [
        *({"C": c, "gamma": gamma} for c in (1, 10) for gamma in (0.001, 0.01, 0.1)),
        {"C": -1},
    ],
    "forest": [{"max_depth": depth} for depth in (4, 8, None)],
    "neighbours": [{"n_neighbors": n} for n in (1, 3, 9)],
    "logistic": [{"C": c} for c in (0.01, 0.1, 1)],
}


@dataclass(frozen=True)
class Config:
    """A model and its settings."""

    model: Model
    params: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.model} {', '.join(f'{k}={v}' for k, v in self.params.items())}"

    def build(self) -> Pipeline:
        """The model, not trained yet, behind a scaler of its inputs."""
        return make_pipeline(StandardScaler(), ESTIMATORS[self.model](**self.params))


@dataclass(frozen=True)
class Score:
    """Accuracy over the folds of cross-validation: mean and standard deviation."""

    config: Config
    mean: float
    deviation: float


@dataclass(frozen=True)
class Board:
    """The scores, best first, and why the other configurations have none."""

    scores: list[Score]
    failures: list[tuple[Config, str]]


@dataclass(frozen=True)
class Samples:
    """Inputs, one row each, and their labels."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]


@task(task_run_name="load-{part}")
def load(data: Data, part: Literal["train", "test"]) -> Samples:
    """Three quarters of the data to train with, or the quarter that is held out."""
    x, y = {"digits": load_digits, "breast_cancer": load_breast_cancer}[data](return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, stratify=y, random_state=0)
    return Samples(x_train, y_train) if part == "train" else Samples(x_test, y_test)


@task(task_run_name="{config}")
def cross_validate(config: Config, train: Samples, folds: int) -> Score:
    """Train and score the model once for each fold."""
    # Without error_score="raise" a model that cannot be trained would score NaN and pass.
    scores = cross_val_score(config.build(), train.x, train.y, cv=folds, error_score="raise")
    return Score(config, float(scores.mean()), float(scores.std()))


@task
def rank(configs: list[Config], scores: list[Score | BaseException]) -> Board:
    """Order what could be trained, and keep the reasons of what could not."""
    good = [score for score in scores if isinstance(score, Score)]
    if not good:
        raise ValueError("no configuration could be trained")
    return Board(
        scores=sorted(good, key=lambda score: score.mean, reverse=True),
        failures=[
            (config, str(score))
            for config, score in zip(configs, scores, strict=True)
            if isinstance(score, BaseException)
        ],
    )


@task
def refit(board: Board, train: Samples) -> Pipeline:
    """The best model, trained with all training data."""
    return board.scores[0].config.build().fit(train.x, train.y)


@task
def evaluate(model: Pipeline, test: Samples) -> NDArray[np.int64]:
    """How often each true label (row) was taken for which label (column)."""
    confusion: NDArray[np.int64] = confusion_matrix(test.y, model.predict(test.x))
    return confusion


@task
def compose(board: Board, confusion: NDArray[np.int64]) -> dict[str, bytes]:
    """The files of the report by name."""
    accuracy = confusion.trace() / confusion.sum()
    best = board.scores[0].config
    text = [
        "# Model sweep\n",
        f"Best: **{best}**, right about {accuracy:.1%} of {confusion.sum()} held-out samples.\n",
        "![Scores and confusion](sweep.png)\n",
        "|Configuration|Accuracy|Deviation|",
        "|---|--:|--:|",
        *(f"|{s.config}|{s.mean:.3f}|{s.deviation:.3f}|" for s in board.scores),
        *(f"\n{config} failed: {reason}" for config, reason in board.failures),
    ]
    return {"report.md": "\n".join(text).encode(), "sweep.png": draw(board, confusion)}


@flow
def ml_sweep(
    data: Data = "digits",
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = tuple(GRID),
    folds: Annotated[int, Field(ge=2)] = 5,
    output: Path = Path("ml-sweep"),
) -> Path:
    """Cross-validate a grid of models, refit the best and try it on held-out data.

    Args:
        data: one of the data sets that come with scikit-learn.
        models: the kinds of model to try.
        folds: how many parts the training data are cut into for cross-validation.
        output: directory to write to.

    Returns:
        The report, a Markdown file.
    """
    train = load.submit(data, "train")
    test = load.submit(data, "test")
    configs = [Config(model, params) for model in models for params in GRID[model]]

    scores = cross_validate.map(configs, unmapped(train), unmapped(folds))
    board = rank.submit(configs, allow_failure(scores))
    confusion = evaluate.submit(refit.submit(board, train), test)
    files = compose.submit(board, confusion).result()

    # Written here and not in a task: a task may run on another machine.
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (output / name).write_bytes(content)
    path = output.resolve() / "report.md"
    get_run_logger().info("The report is in %s", path)
    return path


def draw(board: Board, confusion: NDArray[np.int64]) -> bytes:
    """The scores and the confusion of the best model as a PNG."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    scores = board.scores[::-1]
    left.errorbar(
        [score.mean for score in scores],
        [str(score.config) for score in scores],
        xerr=[score.deviation for score in scores],
        fmt="o",
        color="#dc6b2f",
        ecolor="#94a3b8",
        capsize=3,
    )
    left.set_title("Accuracy in cross-validation")
    left.grid(axis="x", alpha=0.3)
    right.imshow(confusion, cmap="Blues")
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            dark = count > confusion.max() / 2
            color = "white" if dark else "#334155"
            right.text(column, row, str(count), ha="center", va="center", color=color)
    right.set(
        title=f"{board.scores[0].config}: held-out samples",
        xlabel="taken for",
        ylabel="is",
        xticks=range(len(confusion)),
        yticks=range(len(confusion)),
    )
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


if __name__ == "__main__":
    print(ml_sweep())
