"""All that Kallos uses of Ray, Serve, LanceDB and Lance beyond their documented interfaces.

Every entry states why it is needed. `test_compat.py` in `tests/unit/cluster` and `tests/ray` checks each one
against the installed release, so an upgrade that changes one fails there and not in production.
The settings of HAProxy, all of which Ray supports, are in `cluster/proxy.py`.
"""
