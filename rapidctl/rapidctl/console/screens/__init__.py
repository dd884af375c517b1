"""One file a screen; they compose widgets and never touch sockets."""
