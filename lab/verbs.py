"""The verbs that the lab adds to the `kallos` command."""

VERBS = {
    "demo": ("lab.demo", "run the whole loop on a small drawn world, then serve its page"),
    "studio": ("lab.studio", "write a seeded world of drawn, photograph-like images"),
    "suite": ("lab.suite", "evaluate alignment on several studios, with ablations"),
    "redraw": ("lab.redraw", "draw the page of an evaluation or a suite again"),
    "photographs": ("lab.photographs", "measure how well rated photographs teach beauty"),
    "pretrain": ("lab.pretrain", "train the small shipped models: encoder, rephraser, judge"),
    "bench": ("lab.bench", "measure speed against plain loops, and an index against exact search"),
}
