"""The front process: public sockets, admission, journal and streams. No torch."""
