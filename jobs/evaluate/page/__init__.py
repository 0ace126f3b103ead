"""The page of an evaluation: one self-contained HTML file."""
