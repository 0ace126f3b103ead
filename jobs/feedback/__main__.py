"""`python -m jobs.feedback`: see the package."""

from jobs.feedback import main

if __name__ == "__main__":
    main()
