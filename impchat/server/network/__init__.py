"""The network side of the server: sockets, TLS, addresses, discovery."""
