"""``python -m cradlevae.cli`` runs a command as ``cradlevae`` does."""

import sys

from cradlevae.cli.invoke import main

if __name__ == "__main__":
    sys.exit(main())
