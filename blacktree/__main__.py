"""`python -m blacktree`."""

from blacktree.cli.main import main

if __name__ == "__main__":
    main()
