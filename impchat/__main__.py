"""`python -m impchat` runs the command `impchat`."""

import sys

from impchat.cli.main import main

sys.exit(main())
