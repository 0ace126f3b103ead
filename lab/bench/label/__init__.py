"""Compare the speed of the model stages of `kallos label` with vLLM alone.

    kallos bench label

The report has the ratios of requests per second, for the rephraser and for the judge.
"""
