"""rapidd: a daemon that serves an LLM, prefill and decode at the same time on one device."""
