"""The OpenAI-compatible HTTP server (`rapidd http`): a process of its own, a client of the request socket. No torch."""
