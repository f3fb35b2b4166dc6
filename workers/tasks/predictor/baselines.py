"""What a predictor has to beat: how often each failure comes, and logistic regression on the same windows."""
# ruff: noqa: N806 - arrays' names end in their shape

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from workers import sampling
from workers.tasks.predictor.data import Timesteps

Probabilities = Callable[[Timesteps], np.ndarray]  # of every sample of some episodes: (B, H, F) float64
MOST_SAMPLES = 50_000  # more do not change 120 coefficients, and cost minutes


class Baselines:
    """Both fitted on the training split; `predictors` maps a name to a function of episodes."""

    def __init__(self, train: Timesteps, context: int, pad_history: bool, seed: int) -> None:
        self._context, self._pad_history = context, pad_history
        rows = train.rows(context, pad_history)
        if len(rows) > MOST_SAMPLES:
            chosen = sampling.generator("bootstrap", seed, 1).permutation(len(rows))[:MOST_SAMPLES]
            rows = rows[np.sort(chosen)]
        mean_S, deviation_S = train.normalisation()
        self._mean_S, self._deviation_S = mean_S.numpy(), deviation_S.numpy()
        labels_BHF = train.labels_NHF[rows].numpy()
        self._prevalence_HF = labels_BHF.mean(0, dtype=np.float64)
        with threadpool_limits(1):  # the same sums in the same order, whatever the machine
            self._coefficients = self._fit(self._features(train, rows), labels_BHF.reshape(len(rows), -1))
        self.predictors: dict[str, Probabilities] = {"logistic": self._logistic, "prevalence": self._prevalence}

    def _features(self, timesteps: Timesteps, rows: Tensor | None = None) -> np.ndarray:
        found = timesteps.rows(self._context, self._pad_history) if rows is None else rows
        x_BWS = timesteps.windows(found, self._context).numpy()
        return ((x_BWS - self._mean_S) / self._deviation_S).reshape(len(x_BWS), -1)

    def _fit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(outputs, features + 1): coefficients and intercept of each output; of one class, an intercept alone."""
        from sklearn.linear_model import LogisticRegression

        x = x.astype(np.float64)
        found = np.zeros((y.shape[1], x.shape[1] + 1))
        for output, labels in enumerate(y.T):
            share = labels.mean(dtype=np.float64)
            if 0 < share < 1:
                # neighbouring timesteps are nearly alike: the default solver takes three times as long on such features
                model = LogisticRegression(solver="newton-cholesky", tol=1e-3).fit(x, labels)
                found[output] = [*model.coef_[0], *model.intercept_]
            else:
                found[output, -1] = 30.0 if share else -30.0
        return found

    def _logistic(self, timesteps: Timesteps) -> np.ndarray:
        x = self._features(timesteps)
        logits = x @ self._coefficients[:, :-1].T + self._coefficients[:, -1]
        return (1 / (1 + np.exp(-logits))).reshape(-1, *self._prevalence_HF.shape)

    def _prevalence(self, timesteps: Timesteps) -> np.ndarray:
        samples = len(timesteps.rows(self._context, self._pad_history))
        return np.broadcast_to(self._prevalence_HF, (samples, *self._prevalence_HF.shape))
