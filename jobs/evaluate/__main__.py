"""`python -m jobs.evaluate`: see the package."""

from jobs.evaluate import main

if __name__ == "__main__":
    main()
