"""``python -m cradlevae`` runs a command as ``cradlevae`` does."""

import sys

from cradlevae.cli import main

if __name__ == "__main__":
    sys.exit(main())
