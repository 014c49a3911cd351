"""The server side: HTTP in, HTTP out."""
