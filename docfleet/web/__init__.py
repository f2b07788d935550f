"""The HTTP doors: they take documents in, wait for their jobs and answer from the result files.

Everything here runs in the one API process, on its event loop. Nothing here parses, and nothing holds a document.
"""
