"""The command line: thin click commands over `stnkit.convert`, `stnkit.models` and the runtime."""
