"""The channel to the external message service, over HTTP/1.1."""
