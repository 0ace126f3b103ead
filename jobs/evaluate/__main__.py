"""`python -m jobs.evaluate`: the job's entry point."""

from jobs.evaluate.run import main

if __name__ == "__main__":
    main()
