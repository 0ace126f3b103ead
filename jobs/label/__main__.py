"""`python -m jobs.label`: see the package."""

from jobs.label import main

if __name__ == "__main__":
    main()
