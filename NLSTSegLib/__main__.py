"""``python -m NLSTSegLib`` is the command line."""

from NLSTSegLib.cli.app import main

if __name__ == "__main__":
    main()
