"""What a predictor has to beat, on the same signals and episodes: how often failures come, the clock alone, logistic
regression and gradient-boosted trees.

`time` sees nothing but an episode's timesteps so far, which no signal may know: what a predictor has above it comes
from the signals. Both `time` and `boosted` are scikit-learn's HistGradientBoostingClassifier, one an output.
"""
# ruff: noqa: N806 - arrays' names end in their shape

from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from workers import sampling
from workers.tasks.predictor.data import Timesteps

Probabilities = Callable[[Timesteps], np.ndarray]  # of every sample of some episodes: (B, H, F) float64
MOST_SAMPLES = 50_000  # more do not change 120 coefficients, and cost minutes
TREES, LEAVES, LEARNING_RATE = 30, 15, 0.2  # of each output: half a minute on one core for 50,000 samples
SHRINKAGE = 10.0  # of leaf values (L2): where positives are rare and alike, trees without it end at 0 or 1


class Baselines:
    """Each is fitted on the training split when it is asked for."""

    def __init__(self, train: Timesteps, lags: Sequence[int], pad_history: bool, seed: int) -> None:
        self._train, self._lags, self._pad_history = train, lags, pad_history
        rows = train.rows(lags, pad_history)
        if len(rows) > MOST_SAMPLES:
            chosen = sampling.generator("bootstrap", seed, 1).permutation(len(rows))[:MOST_SAMPLES]
            rows = rows[np.sort(chosen)]
        mean_S, deviation_S = train.normalisation()
        self._mean_S, self._deviation_S, self._rows = mean_S.numpy(), deviation_S.numpy(), rows
        self._labels_BHF = train.labels_NHF[rows].numpy()
        self._prevalence_HF = self._labels_BHF.mean(0, dtype=np.float64)

    def fit(self, name: str, alive: Callable[[], None] = lambda: None) -> Probabilities:
        """The baseline "prevalence", "time", "logistic" or "boosted"; `alive` is called after every output."""
        fitters: dict[str, Callable[[Callable[[], None]], Probabilities]] = {
            "prevalence": lambda alive: self._prevalence,
            "time": lambda alive: self._boost(self._elapsed, alive),
            "logistic": self._regress,
            "boosted": lambda alive: self._boost(self._windows, alive),
        }
        with threadpool_limits(1):  # the same sums in the same order, whatever the machine
            return fitters[name](alive)

    def _rows_of(self, timesteps: Timesteps) -> Tensor:
        return timesteps.rows(self._lags, self._pad_history)

    def _windows(self, timesteps: Timesteps, rows: Tensor) -> np.ndarray:
        """(B, W·S) float32: the signals that the model sees, normalised."""
        x_BWS = timesteps.windows(rows, self._lags).numpy()
        return ((x_BWS - self._mean_S) / self._deviation_S).reshape(len(x_BWS), -1)

    def _elapsed(self, timesteps: Timesteps, rows: Tensor) -> np.ndarray:
        """(B, 1) float32: timesteps since the episode's start."""
        return (rows - timesteps.first_N[rows]).numpy().astype(np.float32)[:, None]

    def _prevalence(self, timesteps: Timesteps) -> np.ndarray:
        samples = len(self._rows_of(timesteps))
        return np.broadcast_to(self._prevalence_HF, (samples, *self._prevalence_HF.shape))

    def _regress(self, alive: Callable[[], None]) -> Probabilities:
        from sklearn.linear_model import LogisticRegression

        x = self._windows(self._train, self._rows).astype(np.float64)
        outputs = self._labels_BHF.reshape(len(x), -1).T
        # Coefficients and intercept of each output; of one that has one class only, an intercept alone.
        found = np.zeros((len(outputs), x.shape[1] + 1))
        for coefficients, labels in zip(found, outputs, strict=True):
            share = labels.mean(dtype=np.float64)
            if 0 < share < 1:
                # neighbouring timesteps are nearly alike: the default solver takes three times as long on such features
                model = LogisticRegression(solver="newton-cholesky", tol=1e-3).fit(x, labels)
                coefficients[:] = [*model.coef_[0], *model.intercept_]
            else:
                coefficients[-1] = 30.0 if share else -30.0
            alive()

        def predict(timesteps: Timesteps) -> np.ndarray:
            logits = self._windows(timesteps, self._rows_of(timesteps)) @ found[:, :-1].T + found[:, -1]
            return (1 / (1 + np.exp(-logits))).reshape(-1, *self._prevalence_HF.shape)

        return predict

    def _boost(self, features: Callable[[Timesteps, Tensor], np.ndarray], alive: Callable[[], None]) -> Probabilities:
        from sklearn.ensemble import HistGradientBoostingClassifier

        x = features(self._train, self._rows)
        models = []
        for labels in self._labels_BHF.reshape(len(x), -1).T:
            model = HistGradientBoostingClassifier(
                max_iter=TREES,
                max_leaf_nodes=LEAVES,
                learning_rate=LEARNING_RATE,
                l2_regularization=SHRINKAGE,
                early_stopping=False,
            )
            models.append(model.fit(x, labels > 0) if 0 < labels.mean() < 1 else float(labels.mean()))
            alive()

        def predict(timesteps: Timesteps) -> np.ndarray:
            x = features(timesteps, self._rows_of(timesteps))
            with threadpool_limits(1):
                found = [m if isinstance(m, float) else m.predict_proba(x)[:, 1] for m in models]
            columns = [np.broadcast_to(one, len(x)) for one in found]
            return np.stack(columns, axis=1).reshape(-1, *self._prevalence_HF.shape)

        return predict
