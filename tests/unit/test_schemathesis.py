"""Schemathesis against the real routes: answers to generated requests are those that OpenAPI promises."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from made_service import made_app

OPERATIONS = 9
CASES = int(os.environ.get("KALLOS_SCHEMATHESIS_CASES", "200"))

app = made_app(allow_delete=True)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


def test_the_cases_are_shared_among_all_operations():
    assert len(list(schema.get_all_operations())) == OPERATIONS


@schema.parametrize()
@settings(
    max_examples=max(1, CASES // OPERATIONS),
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.timeout(0 if CASES > 1000 else 120)
def test_answers_are_as_documented(case):
    case.call_and_validate()
