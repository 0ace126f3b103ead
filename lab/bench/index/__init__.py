"""Compare the approximate index with exact search.

    kallos bench index

The report has recall@10, the times of a query, and the time and memory that building takes.
"""
