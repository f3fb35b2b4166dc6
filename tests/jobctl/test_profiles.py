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
    a100 = ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-80GB-PCIe")
    assert products == {"a10g": ("NVIDIA-A10G",), "a100": a100, "ampere": (*a100, "NVIDIA-A10G")}


def test_the_profile_of_several_products_promises_no_more_than_the_smallest_of_them():
    several, parts = profiles.load("ampere"), [profiles.load(name) for name in ("a100", "a10g")]
    assert several.gpu_memory_gib == min(part.gpu_memory_gib for part in parts if part.gpu_memory_gib)
    assert several.cpu_share_millicores == min(part.cpu_share_millicores for part in parts)
    assert several.host_memory_mib == max(part.host_memory_mib for part in parts)


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_says_which_share_of_its_node_a_gpu_may_take(name):
    profile = profiles.load(name)
    assert 0 < profile.cpu_share_millicores < 16_000
    assert (profile.host_memory_mib > 0) == (profile.device == "cuda")


def test_an_unknown_profile_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match=r"no profile 'a100-80'.*did you mean 'a100'"):
        profiles.load("a100-80")
