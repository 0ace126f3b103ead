"""Evaluates alignment on several studios, from the profile's checkpoints alone.

    kallos suite                       # with ablations
    kallos suite --kind objectives     # on the same studios, with the preference losses compared

Writes report.json, report.html and `seed<N>/` of each studio into the output folder.
"""
