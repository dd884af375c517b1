"""The Textual console; started by `rapidctl.console.app.run_console`."""
