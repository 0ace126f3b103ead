"""Made-up requests against the OpenAPI document: no mistake of ours, no answer that it does not tell of.

KALLOS_SCHEMATHESIS_CASES: how many requests in all; more find more.
"""

import os

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from made_service import made_app
from schemathesis.config import SchemathesisConfig

from serve_app.guard import KeyCheck, document_keys
from serve_app.keys import Keyring

KEY = "k" * 16
NUM_CASES = int(os.environ.get("KALLOS_SCHEMATHESIS_CASES", "200"))
# A request may fit the document and still be refused: JSON Schema takes 6.0 for a whole number, we do not.
CHECKS = {"positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "422"]}}


def document_of(app) -> schemathesis.BaseSchema:
    config = SchemathesisConfig.from_dict({"checks": CHECKS})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def with_keys(app):
    app.add_middleware(KeyCheck, keyring=Keyring({"ann": KEY}))
    document_keys(app)
    return app


def seeded(share: float):
    """That share of the cases, spread over the operations."""
    return settings(
        max_examples=max(1, round(share * NUM_CASES / sum(1 for _ in open_to_all.get_all_operations()))),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


open_to_all = document_of(made_app(allow_delete=True))
closed = document_of(with_keys(made_app(allow_delete=True)))


@open_to_all.parametrize()
@seeded(0.75)
def test_every_answer_is_documented(case):
    case.call_and_validate()


@closed.parametrize()
@seeded(0.25)
def test_every_answer_is_documented_where_keys_are_required(case):
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})
