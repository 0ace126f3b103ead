"""Search a running server from the command line, or from Python with `Client`.

    kallos search "red sailboat at sunset" -k 6 --negatives people
    kallos search --image boat.jpg --server http://search.example:8000 --json

Pass an API key in the environment variable KALLOS_KEY: other users of the machine can see --key.
"""
