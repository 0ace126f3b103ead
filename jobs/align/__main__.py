"""`python -m jobs.align`: the job's entry point."""

from jobs.align.run import main

if __name__ == "__main__":
    main()
