"""`python -m stnkit.cli`: the same as the `stnkit` command."""

from stnkit.cli.main import main

main()
