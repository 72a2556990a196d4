"""``python -m lite_export.cli``."""

from lite_export.cli import main

main()
