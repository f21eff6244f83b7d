"""``python -m birthday`` is the ``birthday`` command."""

from birthday.cli import main

if __name__ == "__main__":
    main()
