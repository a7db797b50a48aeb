"""`python -m raysched`."""

from raysched.cli import main

if __name__ == "__main__":
    main()
