"""The nulls of alignment: cheap rivals that use the same preferences and change only the query.

- `suffix`: the baseline encoder with a constant phrase appended to every query.
- `axis`: the baseline encoder with the query's vector moved along one fixed direction, and normalised again.

If what is beautiful did not depend on the query, one of them would do all that alignment does. `kallos align`
fits both to its own training preferences and stores them in the encoder's record. A third rival, `rephrase`
(the language model's query with the baseline encoder), has nothing to fit.
"""
