"""Profiles as the chart has them."""

from __future__ import annotations

import re

import pytest

from jobctl import profiles
from jobctl.errors import UsageError

QUANTITY = re.compile(r"[0-9]+(m|Ki|Mi|Gi|Ti)?")


def test_cpu_is_always_there_and_has_no_gpu():
    profile = profiles.load("cpu")
    assert (profile.device, profile.products, profile.gpu_memory_gib) == ("cpu", (), None)


def test_gpu_profiles_name_the_products_that_nodes_are_labelled_with():
    products = {profile.name: profile.products for profile in profiles.load_all() if profile.device == "cuda"}
    assert products == {
        "a10g": ("NVIDIA-A10G",),
        "a100": (
            "NVIDIA-A100-SXM4-40GB",
            "NVIDIA-A100-SXM4-80GB",
            "NVIDIA-A100-PCIE-40GB",
            "NVIDIA-A100-80GB-PCIe",
        ),
    }


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_sizes_every_kind_in_quantities(name):
    profile = profiles.load(name)
    assert set(profile.kinds) == {"collect", "train", "eval"}
    for sizes in profile.kinds.values():
        for quantity in (sizes.cpu, sizes.memory, sizes.shm, sizes.tmp):
            assert QUANTITY.fullmatch(quantity)


@pytest.mark.parametrize("name", profiles.names())
def test_shared_memory_fits_into_the_memory_that_it_counts_towards(name):
    units = {"Mi": 2**20, "Gi": 2**30}
    for sizes in profiles.load(name).kinds.values():
        shm, memory = (int(text[:-2]) * units[text[-2:]] for text in (sizes.shm, sizes.memory))
        assert shm <= memory / 2


def test_an_unknown_profile_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"no profile 'a100-80'.*did you mean 'a100'"):
        profiles.load("a100-80")
