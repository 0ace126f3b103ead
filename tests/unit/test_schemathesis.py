"""Made-up requests against the OpenAPI document: no mistake of ours, no answer that it does not tell of."""

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from made_service import made_app
from schemathesis.config import SchemathesisConfig

from serve_app.guard import KeyCheck, document_keys
from serve_app.keys import Keyring

KEY = "k" * 16
# A request may fit the document and still ask for nothing, or for two images at once: those are 422 too.
CHECKS = {"positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "422"]}}


def document_of(app) -> schemathesis.BaseSchema:
    config = SchemathesisConfig.from_dict({"checks": CHECKS})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def with_keys(app):
    app.add_middleware(KeyCheck, keyring=Keyring({"ann": KEY}))
    document_keys(app)
    return app


def seeded(num_cases: int):
    return settings(
        max_examples=num_cases,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


open_to_all = document_of(made_app(allow_delete=True))
closed = document_of(with_keys(made_app(allow_delete=True)))


@open_to_all.parametrize()
@seeded(30)
def test_every_answer_is_documented(case):
    case.call_and_validate()


@closed.parametrize()
@seeded(8)
def test_every_answer_is_documented_where_keys_are_required(case):
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})
