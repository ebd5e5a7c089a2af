"""`python -m swahr` is the command `swahr`."""

from swahr.cli import main

if __name__ == "__main__":
    main()
