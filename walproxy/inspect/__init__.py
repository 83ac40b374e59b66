"""`walproxy inspect`: what is in WAL, from files, folders or a live server."""
