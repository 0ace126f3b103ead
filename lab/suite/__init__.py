"""Evaluate alignment on several studios, each labelled and aligned from the profile's checkpoints.

    kallos suite                       # with ablations on the first studio
    kallos suite --quick               # one studio, fewer queries, no ablations
    kallos suite --kind objectives     # compare the preference losses instead

Writes report.json and report.html, and a folder `seed<N>/` for each studio, into the output folder.
"""
