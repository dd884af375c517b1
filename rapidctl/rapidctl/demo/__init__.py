"""A make-believe daemon in this process, for `rapidctl top --demo` and for measuring the console. No sockets."""
