"""``python -m decodery`` is the command ``decodery``."""

from decodery.cli import main

main()
