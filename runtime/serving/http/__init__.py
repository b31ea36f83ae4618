"""The Open Inference Protocol over HTTP, as an ASGI application."""

__all__: list[str] = []
