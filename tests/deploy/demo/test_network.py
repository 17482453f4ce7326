"""A demo has its addresses for itself, and none but loopback's."""

from __future__ import annotations

import pytest

from garrison.deploy.demo.network import Network, parse_network, random_block, reserved
from garrison.identity.errors import RejectedError, UnavailableError


def test_network_of_loopback_is_taken() -> None:
    network = Network(parse_network("127.9.8.0/24"))
    assert network.host(2) == "127.9.8.2"


@pytest.mark.parametrize(
    "text", ["10.0.0.0/24", "127.0.0.0/16", "127.0.20.1/24", "::1/128", "127.0.20", "here"]
)
def test_other_network_is_refused(text: str) -> None:
    with pytest.raises(RejectedError, match=r"wanted is 127\.X\.Y\.0/24"):
        parse_network(text)


def test_network_in_use_is_told_where_it_was_asked_for() -> None:
    block = random_block()
    with (
        reserved(block),
        pytest.raises(UnavailableError, match=r"in use .* another with --network"),
        reserved(block),
    ):
        pass


def test_another_network_is_taken_where_none_was_asked_for() -> None:
    block = random_block()
    with reserved(None, first=block) as one, reserved(None, first=block) as other:
        assert one.block == block
        assert other.block != block


def test_network_is_free_again_afterwards() -> None:
    block = random_block()
    with reserved(block):
        pass
    with reserved(block) as again:
        assert again.block == block
