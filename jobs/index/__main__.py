"""`python -m jobs.index`: see the package."""

from jobs.index import main

if __name__ == "__main__":
    main()
