"""The published JSON Schemas of the files in a bundle."""

__all__: list[str] = []
