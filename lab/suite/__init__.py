"""Evaluates alignment on several studios, from the profile's checkpoints alone.

    kallos suite                       # -> runs/suite/report.json and report.html, with ablations
    kallos suite --kind objectives     # on the same studios, with the preference losses compared
"""
