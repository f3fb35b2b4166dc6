"""The network's sizes, its normalisation, and what its settings let through."""

import pytest
import torch
from pydantic import ValidationError

from workers.tasks.predictor.cost import cost
from workers.tasks.predictor.model import SIZES, Predictor, parameters
from workers.tasks.predictor.settings import TrainSettings


def test_small_has_35_thousand_parameters_within_two_percent():
    assert parameters(Predictor("small", TrainSettings().context)) == pytest.approx(35_000, rel=0.02)


def test_large_has_the_sources_layers_and_dropout():
    model = Predictor("large", 10)

    linear = [layer.out_features for layer in model.layers if isinstance(layer, torch.nn.Linear)]
    assert linear == [128, 256, 256, 256, 128, 64, 16]
    assert {layer.p for layer in model.layers if isinstance(layer, torch.nn.Dropout)} == {0.3}


@pytest.mark.parametrize("size", SIZES)
def test_a_window_gives_a_logit_for_each_horizon_and_failure_type(size):
    assert Predictor(size, 5)(torch.zeros(7, 5, 12)).shape == (7, 4, 4)


def test_normalisation_travels_with_the_weights():
    model = Predictor("small", 2).eval()
    model.mean_S.fill_(5.0)
    model.deviation_S.fill_(2.0)
    other = Predictor("small", 2).eval()

    other.load_state_dict(model.state_dict())

    x = torch.randn(3, 2, 12)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(model(torch.full((1, 2, 12), 5.0)), model.layers(torch.zeros(1, 24)).reshape(1, 4, 4))


@pytest.mark.parametrize("size", SIZES)
def test_the_cost_of_a_sample_is_that_of_the_real_model(size):
    model, found = Predictor(size, 10), cost(TrainSettings(model=size))
    linear = [layer for layer in model.layers if isinstance(layer, torch.nn.Linear)]
    products = sum(layer.in_features * layer.out_features for layer in linear)
    first = linear[0].in_features * linear[0].out_features  # needs no gradient of its input

    assert found["parameters"] == parameters(model)
    assert found["flopsPerSample"] == 2 * 2 * (3 * products - first)  # two windows a sample, two FLOPs a product
    assert found["bytesPerSample"] == 4 * (2 * 10 * 12 + 16)
    assert found["activationBytesPerSample"] >= 2 * 4 * sum(layer.in_features for layer in linear)


def test_batch_and_batch_per_replica_exclude_each_other():
    with pytest.raises(ValidationError, match="exclude each other"):
        TrainSettings.model_validate({"batch": 64, "batchPerReplica": 32})


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"lr": 0}, {"dropout": 1}, {"horizonWeights": [1, 1]}, {"model": "huge"}, {"learningRate": 1}],
)
def test_a_setting_out_of_its_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainSettings.model_validate(wrong)
