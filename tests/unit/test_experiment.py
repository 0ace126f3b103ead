"""Who meets the candidate: the share that was asked for, always the same clients, others for another salt."""

import pytest

from serve_app.search.experiment import assigned

CLIENTS = [f"client-{number}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_about_that_share_of_clients_takes_part(share):
    taken = sum(assigned(client, share, "0123456789abcdef") for client in CLIENTS)
    four_sigma = 4 * (share * (1 - share) / len(CLIENTS)) ** 0.5
    assert taken / len(CLIENTS) == pytest.approx(share, abs=four_sigma)


def test_none_and_all():
    assert not any(assigned(client, 0.0, "salt") for client in CLIENTS)
    assert all(assigned(client, 1.0, "salt") for client in CLIENTS)


def test_a_client_stays_where_it_is_also_when_the_share_grows():
    small = {client for client in CLIENTS if assigned(client, 0.1, "salt")}
    assert small == {client for client in CLIENTS if assigned(client, 0.1, "salt")}
    assert small < {client for client in CLIENTS if assigned(client, 0.3, "salt")}


def test_every_machine_draws_the_same():
    drawn = [assigned(client, 0.5, "salt") for client in ("", "Zoë", *CLIENTS[:4])]
    assert drawn == [True, True, True, True, False, False]


def test_another_candidate_draws_anew():
    first, second = ({client for client in CLIENTS if assigned(client, 0.5, salt)} for salt in ("one", "two"))
    assert len(first & second) / len(CLIENTS) == pytest.approx(0.25, abs=0.02)
