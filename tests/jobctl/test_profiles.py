"""Profiles as the chart has them."""

from __future__ import annotations

import pytest

from jobctl import profiles
from jobctl.errors import UsageError


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
def test_every_profile_says_which_share_of_its_node_a_gpu_may_take(name):
    profile = profiles.load(name)
    assert 0 < profile.cpu_share_millicores < 16_000
    assert (profile.host_memory_mib > 0) == (profile.device == "cuda")


def test_an_unknown_profile_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"no profile 'a100-80'.*did you mean 'a100'"):
        profiles.load("a100-80")
