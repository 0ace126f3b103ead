"""`python -m jobs.ingest`: see the package."""

from jobs.ingest import main

if __name__ == "__main__":
    main()
