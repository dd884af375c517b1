"""One file a widget: a pure function from a view and a width to lines, and the thin widget that shows it."""
