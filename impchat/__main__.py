"""`python -m impchat` is the command `impchat`."""

import sys

from impchat.cli.main import main

sys.exit(main())
