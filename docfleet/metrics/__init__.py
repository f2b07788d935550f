"""What `GET /metrics` tells: counts of the doors' traffic, the list of all metrics, and their text form."""
