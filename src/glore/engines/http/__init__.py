"""The engine over an OpenAI-compatible completions server."""
