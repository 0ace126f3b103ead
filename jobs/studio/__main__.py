"""`python -m jobs.studio`."""

from jobs.studio.write import main

if __name__ == "__main__":
    main()
