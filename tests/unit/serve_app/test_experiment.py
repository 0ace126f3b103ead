"""Assignment to an experiment: the configured share of clients, stable, and new for another candidate."""

import pytest

from serve_app.search.experiment import is_assigned

CLIENTS = [f"client-{index}" for index in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_assigned_share_of_clients_matches_the_setting(share):
    num_assigned = sum(is_assigned(client, share, "0123456789abcdef") for client in CLIENTS)
    four_sigma = 4 * (share * (1 - share) / len(CLIENTS)) ** 0.5
    assert num_assigned / len(CLIENTS) == pytest.approx(share, abs=four_sigma)


def test_share_0_assigns_nobody_and_share_1_everybody():
    assert not any(is_assigned(client, 0.0, "salt") for client in CLIENTS)
    assert all(is_assigned(client, 1.0, "salt") for client in CLIENTS)


def test_assigned_clients_stay_assigned_when_the_share_grows():
    small = {client for client in CLIENTS if is_assigned(client, 0.1, "salt")}
    assert small == {client for client in CLIENTS if is_assigned(client, 0.1, "salt")}
    assert small < {client for client in CLIENTS if is_assigned(client, 0.3, "salt")}


def test_assignment_is_the_same_on_every_machine():
    drawn = [is_assigned(client, 0.5, "salt") for client in ("", "Zoë", *CLIENTS[:4])]
    assert drawn == [True, True, True, True, False, False]


def test_another_candidate_gets_other_clients():
    first, second = (
        {client for client in CLIENTS if is_assigned(client, 0.5, salt)} for salt in ("one", "two")
    )
    assert len(first & second) / len(CLIENTS) == pytest.approx(0.25, abs=0.02)
