"""LitServe as the host of the workers and the app. Only this package imports litserve, with `server.py`."""
