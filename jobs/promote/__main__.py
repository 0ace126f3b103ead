"""`python -m jobs.promote`: see the package."""

from jobs.promote import main

if __name__ == "__main__":
    main()
