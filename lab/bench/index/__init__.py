"""Compare the approximate index with exact search.

    kallos bench index
"""
