"""`python -m glore` is `glore`."""

from glore.cli import main

if __name__ == "__main__":
    main()
