"""Run the whole loop on one machine: draw, ingest, label, align, index, evaluate, promote, serve.

    kallos demo                  # serves the page until Ctrl-C
    kallos demo --no-serve

Each step is the verb itself. Started again, the demo continues where it stopped. Writes
`<out>/report.json`, `<out>/evaluate/report.html`, and the tables in `<out>/store`.
"""
