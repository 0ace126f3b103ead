"""The whole loop on one machine: draw, ingest, label, align, index, evaluate, promote, serve.

    kallos demo                  # serves the page until Ctrl-C
    kallos demo --no-serve

Every stage is the verb itself, called as anyone would call it; started again, it goes on where it stopped.
Writes `<out>/report.json`, `<out>/evaluate/report.html`, and the tables in `<out>/store`.
"""
